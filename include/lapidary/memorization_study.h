// room: study
// What a model has learnt by heart of the data it was fine-tuned on, measured against a reference
// that has not seen them (arXiv 2505.24832). docs/study.md defines the figures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/memorization.h"
#include "lapidary/progress.h"

namespace lapidary {

struct MemorizationOptions {
  std::filesystem::path data;      // what the model was trained on, in any form that train() reads
  std::filesystem::path held_out;  // others of the kind, which neither model has seen
  int64_t sequence_length = 512;   // tokens; longer documents are truncated
  bool prompt_loss = false;        // whether prompts count
  int64_t prefix = 0;              // tokens given for extraction; 0: half of each sequence
  int64_t sample = 256;            // sequences of each side, at most, evenly spread
};

// Of one sequence, over the tokens in it that count.
struct SequenceMemory {
  int64_t sequence = 0;  // of the data
  int64_t tokens = 0;    // that count
  double reference_nats = 0;
  double model_nats = 0;
  double bits = 0;         // memorised: memorized_bits()
  bool extracted = false;  // greedy decoding after the prefix gives the rest, as far as it counts
};

struct MemorizationStudy {
  std::vector<SequenceMemory> members, others;  // of the data, and of what was held out
  int64_t parameters = 0;                       // of the model
  int64_t data_sequences = 0, data_tokens = 0;  // of all the data; tokens that count
  Membership by_loss;                           // a threshold on the model's nats per token
  Membership by_gain;  // on what the reference has less of them: known apart from hard to know
  double data_bits_per_parameter = 0;  // data_tokens times log2 of the vocabulary, over parameters
  double expected_f1 = 0;              // expected_membership_f1() of that
};

// Mean over sequences.
double mean_bits(const std::vector<SequenceMemory>& sequences);
double extraction_rate(const std::vector<SequenceMemory>& sequences);

// Both engines have the same vocabulary; the model's tokenizer reads the data. `watch` counts
// sequences. Throws Error{kInput} for vocabularies that differ and as open_data(), Error{kUsage},
// Error{kInterrupted}.
MemorizationStudy study_memorization(const std::shared_ptr<const Engine>& model,
                                     const std::shared_ptr<const Engine>& reference,
                                     const MemorizationOptions& options, const Watch& watch = {});

}  // namespace lapidary
