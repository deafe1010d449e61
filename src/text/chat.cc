#include "lapidary/chat.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/fail.h"
#include "text/utf8.h"

namespace lapidary {

namespace {

constexpr std::string_view kStartOfTurn = "<start_of_turn>";
constexpr std::string_view kEndOfTurn = "<end_of_turn>";

// What the template's `trim` strips: Unicode white space, as Python's str.strip() has it.
bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty()) {
    const text::Utf8Char c = text::first_utf8(text);
    if (c.size == 0 || !is_space(c.code)) break;
    text.remove_prefix(c.size);
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) --start;
    const text::Utf8Char c = text::first_utf8(text.substr(start));
    if (c.size != text.size() - start || !is_space(c.code)) break;
    text = text.substr(0, start);
  }
  return text;
}

enum class LastTurn { kUser, kModel };

// Checks the order of roles and calls turn(text, user) for each turn, with "user\n" or "model\n"
// before the message's text.
template <class Fn>
void for_each_turn(std::span<const ChatMessage> messages, LastTurn last, Fn&& turn) {
  std::string system;
  size_t first = 0;
  if (!messages.empty() && messages[0].role == "system") {
    system = messages[0].content + "\n\n";
    first = 1;
  }
  if (messages.size() == first) fail_usage("the conversation has no message of the user");
  for (size_t i = first; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool user = message.role == "user";
    if (message.role == "system")
      fail_usage("message {}: a system message can only be the first", i + 1);
    if (!user && message.role != "assistant" && message.role != "model")
      fail_usage("message {}: unknown role {}, expected system, user, assistant or model", i + 1,
                 text::shown(message.role));
    if (user != ((i - first) % 2 == 0))
      fail_usage("message {}: role {} where it is the {}'s turn", i + 1, text::shown(message.role),
                 user ? "model" : "user");
    std::string content = user ? "user\n" : "model\n";
    if (i == first) content += system;
    content += trimmed(message.content);
    turn(content, user);
  }
  const bool ends_with_user = (messages.size() - first) % 2 == 1;
  if (ends_with_user != (last == LastTurn::kUser))
    fail_usage("message {}: the last message must be the {}'s", messages.size(),
               last == LastTurn::kUser ? "user" : "model");
}

// The frame's ids.
struct Frame {
  explicit Frame(const Tokenizer& tokenizer) {
    const std::optional<Token> found_start = tokenizer.find(kStartOfTurn);
    const std::optional<Token> found_end = tokenizer.end_of_turn();
    if (!found_start || !found_end)
      fail("the tokenizer has no piece {}: it is not one of a chat model",
           found_start ? kEndOfTurn : kStartOfTurn);
    start = *found_start;
    end = *found_end;
    between = tokenizer.encode("\n");
    model = tokenizer.encode("model\n");
  }

  Token start, end;
  std::vector<Token> between, model;
};

}  // namespace

std::string format_chat(std::span<const ChatMessage> messages) {
  std::string out = "<bos>";
  for_each_turn(messages, LastTurn::kUser, [&out](const std::string& text, bool) {
    out.append(kStartOfTurn).append(text).append(kEndOfTurn).append("\n");
  });
  return out.append(kStartOfTurn).append("model\n");
}

// The ids of the whole string, piece by piece: control tokens cut the text before anything else
// happens to it, so what lies between two of them is encoded by itself. "user\n" and the text after
// it lie between the same two and are encoded together: "\n" may join with what follows.
std::vector<Token> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                               ControlText control) {
  const Frame frame(tokenizer);
  std::vector<Token> ids{tokenizer.bos()};
  const auto append = [&ids](const std::vector<Token>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  };
  for_each_turn(messages, LastTurn::kUser, [&](const std::string& text, bool) {
    ids.push_back(frame.start);
    append(tokenizer.encode(text, control));
    ids.push_back(frame.end);
    append(frame.between);
  });
  ids.push_back(frame.start);
  append(frame.model);
  return ids;
}

Transcript encode_transcript(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                             ControlText control) {
  const Frame frame(tokenizer);
  Transcript transcript{{tokenizer.bos()}, {false}};
  const auto append = [&transcript](std::span<const Token> ids, bool from_model) {
    transcript.ids.insert(transcript.ids.end(), ids.begin(), ids.end());
    transcript.from_model.resize(transcript.ids.size(), from_model);
  };
  for_each_turn(messages, LastTurn::kModel, [&](const std::string& text, bool user) {
    const std::vector<Token> ids = tokenizer.encode(text, control);
    const auto own = std::mismatch(ids.begin(), ids.end(), frame.model.begin(), frame.model.end());
    const std::span<const Token> all(ids);
    const auto opening = user ? ids.size() : static_cast<size_t>(own.first - ids.begin());
    append({&frame.start, 1}, false);
    append(all.first(opening), false);
    append(all.subspan(opening), true);
    append({&frame.end, 1}, !user);
    append(frame.between, false);
  });
  return transcript;
}

}  // namespace lapidary
