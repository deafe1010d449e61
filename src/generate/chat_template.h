// The Jinja template that a model says its chats are formatted with; empty where it has none.
#pragma once

#include <filesystem>
#include <string>

#include "io/gguf.h"

namespace lapidary {

// Of a folder, of which newer ones have a file of its own and older ones a field, or a GGUF file.
std::string chat_template(const std::filesystem::path& model);
std::string chat_template(const GgufContents& contents, const std::string& where);

}  // namespace lapidary
