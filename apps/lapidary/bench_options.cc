#include "bench_options.h"

#include <charconv>
#include <fstream>

#include <fmt/format.h>

#include "base/fail.h"

namespace lapidary::cli {

namespace fs = std::filesystem;

void add_output(CLI::App& verb, OutputOptions& o, const char* names) {
  auto* format = choices(
      verb.add_option(names, o.format, "What to print (md, a table); html is a page with charts"),
      {"md", "json", "jsonl", "csv", "html"});
  format->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output")->excludes(format);
  verb.add_option("--html", o.html, "Write the page with charts to this file as well")
      ->type_name("FILE")
      ->group("Output");
}

PageFile::PageFile(const std::string& path) : path_(path) {
  std::error_code error;
  if (path.empty() || fs::is_other(path, error)) return;
  if (fs::is_directory(path, error)) fail_resource("{}: is a folder", path);
  file_.emplace(path);
  file_->create(0);
}

void PageFile::write(const Report& report) {
  if (path_.empty()) return;
  const std::string text = render(report, ReportFormat::kHtml);
  if (file_) {
    file_->put(std::as_bytes(std::span(text)), 0);
    file_->finish();
    return;
  }
  std::ofstream device(path_, std::ios::binary);
  device << text;
  if (!device.flush()) fail_resource("{}: cannot write: {}", path_, std::strerror(errno));
}

void put(const Report& report, const OutputOptions& o, PageFile& page) {
  out(render(report, parse_report_format(o.json ? "json" : o.format)));
  page.write(report);
}

void add_probe_memory(CLI::App& verb, int64_t& mib) {
  verb.add_option("--memory", mib, "MiB to read through when memory is measured (1024)")
      ->type_name("N")
      ->check(between(int64_t{1}, int64_t{1} << 20))
      ->group("Measuring");
}

namespace {

// A number at the start of `text`, which it is taken off.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

constexpr size_t kMostNumbers = 1000;

// "512", "128-512", "128-512+128" or "128-2048*2", appended to `numbers`; false if it is not that.
bool parse_range(std::string_view text, std::vector<int64_t>& numbers) {
  if (text.starts_with('-')) return false;
  const auto first = take_number(text);
  if (!first) return false;
  if (text.empty()) return numbers.push_back(*first), true;
  if (!text.starts_with('-')) return false;
  text.remove_prefix(1);
  const auto last = take_number(text);
  if (!last || *last < *first) return false;
  const char operation = text.empty() ? '+' : text.front();
  int64_t step = 1;
  if (!text.empty()) {
    text.remove_prefix(1);
    step = take_number(text).value_or(0);
  }
  const bool times = operation == '*';
  if (!text.empty() || (!times && operation != '+') || step < (times ? 2 : 1)) return false;
  if (times && *first == 0) return false;
  for (int64_t n = *first; n <= *last && numbers.size() <= kMostNumbers;
       n = times ? n * step : n + step)
    numbers.push_back(n);
  return true;
}

}  // namespace

std::vector<int64_t> parse_numbers(const std::vector<std::string>& texts, const std::string& what,
                                   int64_t least) {
  std::vector<int64_t> numbers;
  for (const std::string& text : texts)
    for (const std::string& part : CLI::detail::split(text, ','))
      if (!parse_range(part, numbers))
        fail_usage(
            "{}: '{}' given, expected numbers as in 512 or 128,256 or 0-4096+1024 or "
            "128-2048*2",
            what, part);
  if (numbers.size() > kMostNumbers) fail_usage("{}: more than {} numbers", what, kMostNumbers);
  for (const int64_t n : numbers)
    if (n < least || n > (int64_t{1} << 24))
      fail_usage("{}: {} given, expected {} to {}", what, n, least, 1 << 24);
  return numbers;
}

}  // namespace lapidary::cli
