// One line of a JSONL file of training data.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lapidary/chat.h"

namespace lapidary {

struct TextRecord {
  std::string text;
};
struct CompletionRecord {
  std::string prompt;
  std::string completion;
};
struct ChatRecord {
  std::vector<ChatMessage> messages;
};
using Record = std::variant<TextRecord, CompletionRecord, ChatRecord>;

// {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [{"role": ..., "content": ...},
// ...]}; other fields are allowed and left aside, but not two of these kinds at once. `where`,
// "train.jsonl:7", begins each message. Throws Error{kInput}: not UTF-8, not a JSON object, none or
// several of the kinds, a field of the wrong type, missing or empty, tools, which Gemma's format
// does not have. The order of roles is checked where the conversation is encoded.
Record parse_record(std::string_view line, const std::string& where);

}  // namespace lapidary
