// room: generate
// The loop from a prompt to an answer: sample, append, decode, stop.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/decoding.h"
#include "lapidary/progress.h"
#include "lapidary/sampler.h"
#include "lapidary/session.h"

namespace lapidary {

enum class FinishReason {
  kStop,    // an end-of-text token or a stop string
  kLength,  // max_tokens were made or the context is full
  kInterrupted,
};

struct GenerateOptions {
  int64_t max_tokens = -1;  // -1: until the end of the answer or of the context
  SamplerOptions sampling = {};
  std::vector<std::string> stop = {};  // the text ends before the first of these; needs a tokenizer
  bool ignore_eos = false;             // go on past end-of-text tokens
  DecodeOptions decode = {};
  std::function<void(const BlockView&)> on_block = {};  // of kSetBlock: after each pass
};

struct Generation {
  std::vector<Token> tokens;  // made, the end-of-text token included
  std::string text;           // of them, without control tokens; empty without a tokenizer
  FinishReason finish_reason = FinishReason::kLength;
  int64_t forward_passes = 0;                  // of the model, after the prompt's
  std::vector<int64_t> passes_by_tokens = {};  // [n]: passes that made n tokens certain
  std::vector<Reveal> reveals = {};            // of kSetBlock, of each of `tokens`
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, that the session had already
  double prefill_seconds = 0;
  double first_token_seconds = 0;  // from the call to the first token: prefill and one sample
  double decode_seconds = 0;       // of the tokens after the first
  double prefill_tokens_per_second() const;
  double decode_tokens_per_second() const;
};

// Ids that end an answer: of generation_config.json, and the tokenizer's <eos> and <end_of_turn>.
std::vector<Token> end_tokens(const Engine& engine);

// Makes the session's timeline equal `prompt` (Session::sync), then generates. on_text gets the
// answer's text as it becomes certain: whole characters, nothing that may yet be part of a stop
// string. A stop request ends the answer with kInterrupted and keeps what was made.
// The session has the prompt and the answer then, but for its last token, or of kSetBlock for its
// last block.
// Throws Error{kInput} when the prompt and max_tokens do not fit the context, by how many tokens.
Generation generate(Session& session, std::span<const Token> prompt, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& on_text = {},
                    const Watch& watch = {});

}  // namespace lapidary
