// The loops that make an answer token by token, or several at once.
#pragma once

#include <stop_token>
#include <string_view>

#include "lapidary/generate.h"

namespace lapidary {

// Takes the tokens of an answer as they become certain, and says when it is over.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  virtual std::optional<FinishReason> put(Token id) = 0;
};

// Goes on from the session's logits until `sink` or `stop` ends it; fills in how the passes went.
// The last token is not appended to the session: what follows may be another prompt.
FinishReason decode_in_order(Session& session, const GenerateOptions& options, int usable_vocab,
                             AnswerSink& sink, const std::stop_token& stop, Generation& made);
FinishReason decode_blocks(Session& session, const GenerateOptions& options, int usable_vocab,
                           AnswerSink& sink, const std::stop_token& stop, Generation& made);

}  // namespace lapidary
