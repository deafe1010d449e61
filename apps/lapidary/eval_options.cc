#include "eval_options.h"

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

}  // namespace lapidary::cli
