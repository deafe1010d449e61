// Prompts as a model reads them.
#pragma once

#include <vector>

#include "lapidary/eval.h"

namespace lapidary {

// In the chat format, or as it is after <bos>.
std::vector<Token> prompt_ids(const Engine& engine, const EvalPrompt& prompt, bool chat_format);

}  // namespace lapidary
