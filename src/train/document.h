// What a model sees of a record.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lapidary/tokenizer.h"

#include "train/record.h"

namespace lapidary {

struct Document {
  std::vector<Token> tokens;     // begins with <bos>
  std::vector<uint8_t> counted;  // [tokens]: 1 where the loss counts how well it was predicted

  void append(const std::vector<Token>& ids, bool counts);
};

struct DocumentOptions {
  bool prompt_loss = false;     // whether prompts, users' turns and the chat's frame count too
  bool chat_completion = true;  // whether prompt and completion are a turn of each in a chat
  std::optional<Token> reserved = {};  // that no document may have
};

// Text: <bos> text <eos>, in which the spelling of a control token is that token, so that text
// which was put into a format before is taken as such; a <bos> at its start or an <eos> at its end
// is not doubled. Conversations: Gemma's format, ids as HF's chat template gives them, without an
// <eos>; control tokens in messages are text. Prompt and completion: a conversation of two turns,
// or else <bos> prompt completion <eos>, each encoded by itself, as generating after the prompt
// would have it. Throws Error{kInput} that begins with `where` for roles that do not alternate or
// do not end with the model's, for a tokenizer without the tokens of a chat, and for the token that
// is reserved.
Document make_document(const Record& record, const Tokenizer& tokenizer,
                       const DocumentOptions& options, const std::string& where);

// What it throws for that token.
[[noreturn]] void refuse_reserved(Token token, const Tokenizer& tokenizer,
                                  const std::string& where);

}  // namespace lapidary
