// --decode and what belongs to it, of the verbs that make answers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "common.h"

namespace lapidary::cli {

struct DecodingFlags {
  std::string mode = "plain";
  std::string draft_model;
  std::optional<int64_t> block, draft_max, ngram_max;
  std::optional<double> gamma;
  std::optional<std::string> order;
  std::optional<std::string> mask;  // an id, or a piece of the vocabulary
};
void add_decoding(CLI::App& verb, DecodingFlags& flags);
// Those but --decode, --block and --gamma.
void add_decoding_details(CLI::App& verb, DecodingFlags& flags);
// Throws Error{kUsage} for what is wrong with any model, before one is loaded.
void check(const DecodingFlags& flags);
// Throws Error{kUsage} for a flag that none of the ways reads; `choice` is the flag that named
// them.
void check_used(const DecodingFlags& flags, const std::string& choice,
                std::span<const std::string> ways);
// Loads the smaller model that guesses, if one is to; warns of a model that was not trained for
// blocks, or not for such large ones.
DecodeOptions resolve(const DecodingFlags& flags, const Engine& engine, const ModelOptions& model,
                      const Verbosity& verbosity);

// Warns of blocks larger than those that the model says it has learnt.
void warn_of_block(int64_t block, const Engine& engine);

// A block after a pass on a line: what is decided now stands out, what is not yet is shaded.
std::string block_text(const BlockView& view, const Engine& engine);
// forward_passes and, of what is not decoded plainly, how many tokens they made and of blocks, how
// these were filled.
void add_passes(Json& json, const Generation& made, DecodeMode mode);

}  // namespace lapidary::cli
