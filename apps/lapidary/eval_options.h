// What perplexity and compare share.
#pragma once

#include "lapidary/eval.h"

#include "common.h"

namespace lapidary::cli {

void add_windows(CLI::App& verb, WindowOptions& options);  // -c and --stride
Json windows_json(const WindowOptions& options);

// Ids as they are, or those of the text in windows that begin with <bos>, unless --no-bos.
EvalText eval_text(const Input& input, const Engine& engine);

// `left` and `right` in two columns of a terminal of `width`; where they stop being equal, after
// `common` bytes, is a mark. Control characters, which could do something to a terminal, are
// blanks.
std::string side_by_side(std::string_view left, std::string_view right, size_t common, size_t width,
                         bool colour);

}  // namespace lapidary::cli
