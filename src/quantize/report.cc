#include <algorithm>
#include <charconv>
#include <optional>
#include <unistd.h>

#include <fmt/ranges.h>

#include "lapidary/quantize.h"

#include "base/fail.h"
#include "generate/storage.h"
#include "io/staging.h"
#include "quantize/dense_model.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// How the model of one row is made.
struct Format {
  std::string name;
  QuantizeOptions quantize = {};
  bool gguf = false;  // of the type `name`, instead
};

// "awq-4.25" with the other options of `given`; nullopt for what is not METHOD-NUMBER.
std::optional<QuantizeOptions> parse_method(const std::string& name, const QuantizeOptions& given) {
  QuantizeOptions options = given;
  options.bits_per_weight = 0;
  if (name.starts_with("rtn-"))
    options.method = QuantizeMethod::kRtn;
  else if (name.starts_with("awq-"))
    options.method = QuantizeMethod::kAwq;
  else
    return std::nullopt;
  const char* const first = name.data() + 4;
  const char* const last = name.data() + name.size();
  if (const auto whole = std::from_chars(first, last, options.bits);
      whole.ec == std::errc() && whole.ptr == last) {
    check_affine_options(options.bits, options.group_size);
    return options;
  }
  options.bits = QuantizeOptions().bits;
  const auto part = std::from_chars(first, last, options.bits_per_weight);
  const bool budget = part.ec == std::errc() && part.ptr == last && options.bits_per_weight > 0;
  return budget ? std::optional(options) : std::nullopt;
}

std::vector<Format> parse_formats(const FormatReportOptions& options) {
  const std::vector<std::string> types = gguf_types();
  std::vector<Format> formats;
  for (const std::string& name : options.formats) {
    if (std::ranges::find(formats, name, &Format::name) != formats.end())
      fail_usage("formats: '{}' comes twice", name);
    if (const auto method = parse_method(name, options.quantize))
      formats.push_back({name, *method});
    else if (std::ranges::find(types, name) != types.end())
      formats.push_back({.name = name, .gguf = true});
    else
      fail_usage(
          "formats: '{}' given, expected a method and bits as in rtn-4 or awq-4.25, or one of {}",
          name, fmt::join(types, ", "));
  }
  if (formats.empty()) fail_usage("formats: none given");
  return formats;
}

fs::path make(const fs::path& in, const Format& format, const QuantizeOptions& common,
              const fs::path& folder, const Watch& watch) {
  if (!format.gguf) {
    quantize_folder(in, folder / format.name, format.quantize, watch);
    return folder / format.name;
  }
  const fs::path file = folder / (format.name + ".gguf");
  export_gguf(in, file,
              {.type = format.name,
               .overwrite = common.overwrite,
               .check = common.check,
               .threads = common.threads},
              watch);
  return file;
}

}  // namespace

void format_report(const fs::path& in, const FormatReportOptions& options,
                   const std::function<EvalText(const Engine&)>& text_of,
                   const std::function<void(const QualityRow&)>& on_row, const Watch& watch) {
  const std::vector<Format> formats = parse_formats(options);
  load_dense(in);  // a source that cannot be quantised shows before anything is measured
  const bool keeps = !options.keep.empty();
  std::optional<Staging> temporary;
  std::error_code error;
  if (keeps)
    fs::create_directories(options.keep, error);
  else
    temporary.emplace(fs::temp_directory_path() / fmt::format("lapidary-report-{}", ::getpid()));
  if (error) fail_resource("{}: cannot create: {}", options.keep.string(), error.message());
  const fs::path folder = keeps ? options.keep : temporary->path();

  const QualityTable table(in, text_of, options.quality, watch);
  on_row(table.first());
  for (const Format& format : formats) {
    const fs::path made = make(in, format, options.quantize, folder, watch);
    QualityRow row = table.measure(made, watch);
    row.model = format.name;
    on_row(row);
    if (!keeps) fs::remove_all(made);
  }
}

}  // namespace lapidary
