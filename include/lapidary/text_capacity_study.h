// room: study
// Where learning a text by heart gives way to learning the language: models of one size are trained
// on growing amounts of a text, and what they know of it is told apart from what they know of a
// part that none has seen (Morris et al., arXiv 2505.24832). docs/study.md defines the figures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/capacity_study.h"
#include "lapidary/memorization.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

struct TextCapacityOptions {
  std::filesystem::path folder;          // models, amounts of text and results
  std::filesystem::path text;            // a plain text
  std::filesystem::path tokenizer = {};  // of this model; empty: a token is a byte
  std::vector<int64_t> sizes = {20000};  // parameters, about, embeddings included
  // Amounts of text, in bits per parameter as if its tokens were uniform over the vocabulary. All
  // of the text is the last amount in any case. Empty: from 0.25 on, each twice the one before.
  std::vector<double> loads = {};
  int layers = 2;
  int64_t steps = 3000;
  // Sequences that no model is trained on, and at most as many of the trained ones that are read
  // to measure.
  int64_t held_out = 1000;
  double capacity = 3.5;  // bits per parameter, as study_capacity() finds them
  CapacityRecipe recipe;
  int threads = 0;  // models that are trained at once; 0: one per core
};

// A text as sequences of equal length, of which no two are the same, in an order by chance.
struct TextSequences {
  int vocabulary = 0;  // tokens that occur; they are numbered from 0 in the order of their ids
  std::vector<std::vector<Token>> train = {}, held_out = {};
  int64_t duplicates = 0;    // left out
  uint64_t fingerprint = 0;  // of all of them
};
// What is left at the end is left out. Throws Error{kInput} for a file that cannot be read, a
// tokenizer that cannot, or a text that leaves no sequence to train on beside those held out.
TextSequences text_sequences(const std::filesystem::path& text,
                             const std::filesystem::path& tokenizer, int64_t length,
                             int64_t held_out, uint64_t seed);

// One model, trained on one amount of text. The reference is the run of its size on all of it.
struct TextCapacityRun {
  int64_t size = 0;  // of TextCapacityOptions::sizes
  double load = 0;   // data_bits per parameter
  int64_t parameters = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;         // predicted ones of the data
  double data_bits = 0;       // tokens times log2 of the vocabulary
  double reference_bits = 0;  // what the reference needs for the data: -log2 p, by those measured
  double train_loss = 0, test_loss = 0;  // nats per token, of those measured and of the held out
  // Means of a sequence, of those measured and of the held out.
  double memorized_bits = 0, test_memorized_bits = 0;  // beyond the reference
  double extraction_rate = 0, test_extraction_rate = 0;
  Membership membership = {};  // of those measured among the held out, by nats per token
  double expected_f1 = 0;      // expected_membership_f1() of load
  int64_t steps = 0;
  double seconds = 0;  // of training, by one thread
  // Of all of the data.
  double memorized_bits_per_parameter() const {
    return memorized_bits * static_cast<double>(sequences) / static_cast<double>(parameters);
  }
};

// Where test losses by growing data rise, and then fall again: the largest such peak.
struct DoubleDescent {
  size_t peak = 0;
  double rise = 0, fall = 0;  // from the lowest before, to the lowest after; nats per token
};
// nullopt where neither reaches 1 % of the loss.
std::optional<DoubleDescent> find_double_descent(std::span<const double> test_losses);

// The last of memorised bits of a sequence, by growing data, that is not below 95 % of the most;
// nullopt where that is the last one, so that they were not seen to fall.
std::optional<size_t> find_grokking(std::span<const double> memorized_bits);

// The models of one size.
struct TextCapacityOfSize {
  int64_t parameters = 0;
  double capacity_bits = 0;           // parameters times TextCapacityOptions::capacity
  std::vector<TextCapacityRun> runs;  // by growing data; the last is the reference, on all of it
  TextCapacityRun half;               // with the data next to the capacity, for half the steps
  // Places in the runs. Whether anything falls, of those before the reference.
  std::optional<DoubleDescent> double_descent = {};
  std::optional<size_t> grokking =
      {};  // find_grokking() of the share of reference_bits that is memorised
  std::optional<size_t> data_pass = {};       // first whose data_bits are above the capacity
  std::optional<size_t> reference_pass = {};  // first whose reference_bits are
  size_t most_memorized = 0;  // of its data together, without what as many held out ones have
  // What training for all the steps brings over half of them, in memorised bits, as a share; unset
  // where `half` is of all the text: the reference memorises nothing, by what it is.
  std::optional<double> gain_of_training = {};
  bool training_plateau = false;  // whether that is there, and small
};

struct TextCapacityStudy {
  TextCapacityOptions options;
  int vocabulary = 0;
  int64_t sequences = 0;   // to train on
  int64_t duplicates = 0;  // left out
  std::vector<TextCapacityOfSize> sizes;
};

// Trains what is not yet in the folder, several models at once, one thread each; the results do not
// depend on how many. A study that was stopped or killed goes on where it was. `watch` counts
// tokens. Throws Error{kUsage} for options, Error{kInput} for a folder of other options or another
// text, for a load beyond the text, as text_sequences() and train(), Error{kInterrupted}.
TextCapacityStudy study_text_capacity(const TextCapacityOptions& options, const Watch& watch = {});

}  // namespace lapidary
