#include "train/record.h"

#include "base/fail.h"
#include "base/json.h"
#include "text/utf8.h"

namespace lapidary {

namespace {

std::string text_of(const JsonObject& object, std::string_view field) {
  std::string text = object.string(field);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) object.fail_field(field, "is empty");
  return text;
}

ChatRecord chat_record(const JsonObject& object, const std::string& where) {
  const Json& list = object.raw("messages");
  if (!list.is_array())
    object.fail_field("messages", fmt::format("expected a list, found {}", shown_json(list)));
  if (list.empty()) object.fail_field("messages", "is empty");
  ChatRecord record;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonObject message(list[i], fmt::format("{}: message {}", where, i + 1));
    record.messages.push_back({message.string("role"), text_of(message, "content")});
  }
  return record;
}

}  // namespace

Record parse_record(std::string_view line, const std::string& where) {
  if (const size_t valid = text::utf8_bytes(line); valid < line.size())
    fail("{}: not valid UTF-8 (stopped at byte {})", where, valid + 1);
  const Json json = parse_json(line, where);
  const JsonObject object(json, where);
  if (object.has("tools") && !object.raw("tools").empty())
    object.fail_field("tools", "Gemma's chat format has none");

  const bool text = object.has("text"), messages = object.has("messages");
  const bool completion = object.has("prompt") || object.has("completion");
  if (text + messages + completion == 0)
    fail("{}: none of the fields text, prompt and completion, messages", where);
  if (text + messages + completion > 1)
    fail("{}: expected one of the fields text, prompt and completion, messages; found {}{}{}",
         where, text ? "text " : "", completion ? "prompt or completion " : "",
         messages ? "messages" : "");
  if (messages) return chat_record(object, where);
  if (text) return TextRecord{text_of(object, "text")};
  return CompletionRecord{text_of(object, "prompt"), text_of(object, "completion")};
}

}  // namespace lapidary
