#include "eval_options.h"

#include <fmt/format.h>

#include "eval/reports.h"

namespace lapidary::cli {

void add_windows(CLI::App& verb, WindowOptions& o) {
  verb.add_option("-c,--context,--ctx-size", o.context,
                  "Positions of a window, its <bos> included (512)")
      ->type_name("N")
      ->group("Input");
  verb.add_option("--stride,--ppl-stride", o.stride,
                  "Tokens from the start of a window to that of the next (half a window)")
      ->type_name("N")
      ->group("Input");
}

Json windows_json(const WindowOptions& o) {
  return {{"context", o.context}, {"stride", stride_of(o)}};
}

EvalText eval_text(const Input& input, const Engine& engine) {
  if (input.ids) return {*input.ids, std::nullopt};
  EvalText text = encode_text(engine, input.text);
  if (!input.bos) text.bos.reset();
  return text;
}

Subject read_subject(const TextOptions& o) {
  if (o.prompt || !o.file.empty() || o.ids)
    return {read_input(o), o.file.empty() ? "given" : o.file};
  return {{.text = std::string(built_in_text()), .bos = !o.no_bos}, "built-in"};
}

void say_built_in(const Subject& subject, const Verbosity& verbosity) {
  if (subject.name == "built-in" && !verbosity.quiet)
    note("lapidary: no -f given, using the built-in text");
}

int run_table(const Subject& subject, const WindowOptions& windows, const Verbosity& verbosity,
              const OutputOptions& output,
              const std::function<void(const std::function<EvalText(const Engine&)>&,
                                       const std::function<void(const QualityRow&)>&)>& measure) {
  PageFile page(output.html);
  std::vector<QualityRow> rows;
  int64_t tokens = 0;
  const int code = until_interrupted(rows, [&] {
    measure(
        [&](const Engine& engine) {
          say_built_in(subject, verbosity);
          EvalText text = eval_text(subject.input, engine);
          tokens = std::ssize(text.tokens);
          return text;
        },
        [&](const QualityRow& row) { rows.push_back(row); });
  });
  put(quality_report(this_host(), rows,
                     fmt::format("{}, {} tokens, windows of {}, stride {}", subject.name, tokens,
                                 windows.context, stride_of(windows))),
      output, page);
  return code;
}

}  // namespace lapidary::cli
