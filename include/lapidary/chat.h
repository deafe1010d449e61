// room: text
// Gemma's chat format.
//
//   <bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n
//
// Turns alternate and start with the user's; text is trimmed. Gemma has no system role: system text
// is put, followed by a blank line, before the first user turn. That is what Gemma 3's own template
// does; Gemma 1's and 2's raise an error there, lapidary does the same as for Gemma 3 and documents
// it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lapidary/tokenizer.h"

namespace lapidary {

struct ChatMessage {
  std::string role;  // "system" (first only), "user", "assistant" or "model"
  std::string content;
};

// The conversation as text, <bos> included, ending with the opened turn of the model. Throws
// Error{kUsage} naming the message when roles do not alternate, are unknown or the last is not the
// user's.
std::string format_chat(std::span<const ChatMessage> messages);

// The conversation as ids. The frame's control tokens are ids by construction; the messages' text
// is encoded by `control`, so that text from outside cannot open or close a turn (kLiteral). With
// kParse and ordinary text the ids equal those of HF's apply_chat_template.
std::vector<Token> encode_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                               ControlText control = ControlText::kLiteral);

// A whole conversation, as models are trained on it.
struct Transcript {
  std::vector<Token> ids;        // from <bos> to the line break after the last <end_of_turn>
  std::vector<bool> from_model;  // of each: whether it is text of the model, or ends its turn
};

// The last message is the model's. Everything else is as for encode_chat(), whose ids for a part of
// the conversation are how these begin.
Transcript encode_transcript(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                             ControlText control = ControlText::kLiteral);

}  // namespace lapidary
