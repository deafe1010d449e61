// What the verbs of bench share.
#pragma once

#include <string>

#include <fmt/format.h>

#include "lapidary/error.h"

#include "bench/reports.h"
#include "common.h"
#include "io/output_file.h"

namespace lapidary::cli {

struct OutputOptions {
  std::string format = "md";
  bool json = false;  // the same as -o json
  std::string html;   // a file for the page, whatever is printed
};
// `names` of the option for the format.
void add_output(CLI::App& verb, OutputOptions& options, const char* names = "-o,--output");

// The page of --html, there whole or not at all. Throws Error{kResource} when it cannot be made:
// at once, before the work whose results it is for.
class PageFile {
 public:
  explicit PageFile(const std::string& path);  // "": none
  void write(const Report& report);

 private:
  std::string path_;
  std::optional<OutputFile> file_;  // unset for what is no file: a pipe, a device
};

// Prints the report and writes its page.
void put(const Report& report, const OutputOptions& options, PageFile& page);

// A check that help does not spell out. CLI::Range lets through what is no number and neither less
// nor more: nan.
template <class T>
CLI::Validator between(T least, T most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        T value{};
        const bool number = CLI::detail::lexical_cast(text, value);
        if (number && value >= least && value <= most) return std::string();
        return fmt::format("{} given, expected {} to {}", text, least, most);
      },
      "");
}

// Calls fn(). An interruption once there are results is no failure: what is done is worth having.
// Returns the exit code to go on with.
template <class Results, class Fn>
int until_interrupted(const Results& results, Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInterrupted || results.empty()) throw;
    return kInterrupted;
  }
  return kOk;
}

// --memory in MiB of the buffer that reading is measured with.
void add_probe_memory(CLI::App& verb, int64_t& mib);

// Numbers as llama-bench takes them: "512", "128,512", ranges "0-4096+1024" and "128-2048*2", the
// last number included where the steps meet it. `what` names the option. Throws Error{kUsage}.
std::vector<int64_t> parse_numbers(const std::vector<std::string>& texts, const std::string& what,
                                   int64_t least);

void add_bench_limits(Program& program, CLI::App& bench);
void add_bench_kernels(Program& program, CLI::App& bench);
void add_bench_natural(Program& program, CLI::App& bench);
void add_bench_decode(Program& program, CLI::App& bench);
void add_bench_peers(Program& program, CLI::App& bench);

}  // namespace lapidary::cli
