// What perplexity, compare and quantize share.
#pragma once

#include <functional>
#include <string>

#include "lapidary/eval.h"

#include "bench_options.h"
#include "common.h"

namespace lapidary::cli {

void add_windows(CLI::App& verb, WindowOptions& options);  // -c and --stride
Json windows_json(const WindowOptions& options);

// Ids as they are, or those of the text in windows that begin with <bos>, unless --no-bos.
EvalText eval_text(const Input& input, const Engine& engine);

// The text that models are compared on: that of -p, -f or --ids, else the built-in one.
struct Subject {
  Input input;
  std::string name;
};
Subject read_subject(const TextOptions& options);
void say_built_in(const Subject& subject, const Verbosity& verbosity);

// Calls measure(text_of, on_row), which makes the rows of a table, and prints what it made before
// an interruption. Returns the exit code.
int run_table(const Subject& subject, const WindowOptions& windows, const Verbosity& verbosity,
              const OutputOptions& output,
              const std::function<void(const std::function<EvalText(const Engine&)>&,
                                       const std::function<void(const QualityRow&)>&)>& measure);

// `left` and `right` in two columns of a terminal of `width`; where they stop being equal, after
// `common` bytes, is a mark. Control characters, which could do something to a terminal, are
// blanks.
std::string side_by_side(std::string_view left, std::string_view right, size_t common, size_t width,
                         bool colour);

}  // namespace lapidary::cli
