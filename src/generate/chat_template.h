// The Jinja template that a model's folder says its chats are formatted with.
#pragma once

#include <filesystem>
#include <string>

namespace lapidary {

// Newer folders have a file of its own, older ones a field; empty when there is neither.
std::string chat_template(const std::filesystem::path& folder);

}  // namespace lapidary
