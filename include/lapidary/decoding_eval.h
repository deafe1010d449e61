// room: eval
// Ways of decoding beside each other: how fast, by how many passes, and at what cost to the
// answers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/decoding.h"
#include "lapidary/eval.h"

namespace lapidary {

struct DecodingOptions {
  int64_t max_tokens = 128;  // of an answer
  int repetitions = 3;       // in turns: every way once, then every way again
  bool chat_format = false;
  SamplerOptions sampling = {.temperature = 0};
};

// How the places of blocks were filled, means over the blocks: [block].
struct BlockFilling {
  std::vector<double> entropy = {};  // nats, when the place was decided
  std::vector<double> pass = {};     // of the block, from 1, that decided it
};

// All answers of one way of decoding.
struct DecodingResult {
  DecodeOptions decode;
  int64_t prompts = 0;
  int64_t tokens = 0;                // of the answers, in one repetition
  int64_t forward_passes = 0;        // for them, after the prompts'
  std::vector<double> seconds = {};  // of a repetition: from the prompt's last pass to the end
  int64_t identical = 0;             // answers with the tokens of ordinary decoding
  double nll = 0;  // nats per token of the answers, as the model finds them by ordinary decoding
  std::optional<double> accuracy = {};  // share of the prompts with a known answer that have it
  BlockFilling filling = {};            // of kSetBlock
  std::vector<std::string> texts = {};  // the answers
  double tokens_per_second() const;     // of the repetition in the middle
  double tokens_per_pass() const;
};
std::string name_of(const DecodeOptions& decode);  // "set-block 16, gamma 0.35"

// The first of `ways` is the ordinary one that the others are compared with. A prompt is read once
// and its session forked. Throws Error{kUsage} for ways that cannot be, Error{kInterrupted}.
std::vector<DecodingResult> measure_decoding(const std::shared_ptr<const Engine>& engine,
                                             std::span<const EvalPrompt> prompts,
                                             std::span<const DecodeOptions> ways,
                                             const DecodingOptions& options,
                                             const Watch& watch = {});

}  // namespace lapidary
