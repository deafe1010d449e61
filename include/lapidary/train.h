// room: train
// Training a model on a text: all of it, or adapters.
//
//   TrainOptions options{.model = "models/tiny", .data = "stories.jsonl", .run = "run"};
//   options.method = TrainMethod::kLora;
//   TrainResult result = train(options);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"

namespace lapidary {

enum class TrainMethod : uint8_t {
  kFull,    // every weight
  kLora,    // adapters (arXiv 2106.09685)
  kRelora,  // adapters that are merged and begun anew (arXiv 2307.05695)
  kRank1,   // steps of a low rank, merged as they are made
};
// "full", "lora", "relora" or "rank1". Throws Error{kUsage}.
TrainMethod train_method(std::string_view name);
std::string_view name_of(TrainMethod method);

// What is learned, by whatever moves.
enum class TrainObjective : uint8_t {
  kNextToken,  // each token from those before it
  // That, and masked tokens of blocks from what is before the block and known in it, by which a
  // model decodes several tokens at once (arXiv 2509.04185).
  kSetBlock,
};
// "next" or "sbd". Throws Error{kUsage}.
TrainObjective train_objective(std::string_view name);
std::string_view name_of(TrainObjective objective);

// Where the directions of rank1 come from.
enum class Directions : uint8_t {
  kRandom,   // drawn: the step is the gradient on average, and mostly noise
  kAligned,  // random combinations of the gradient's rows
  kTop,      // its largest singular directions, by power iteration
};
// "random", "aligned" or "top". Throws Error{kUsage}.
Directions train_directions(std::string_view name);
std::string_view name_of(Directions directions);

struct TrainOptions {
  std::filesystem::path model;
  std::filesystem::path data;
  std::filesystem::path run;  // the folder that everything goes to
  bool resume = false;        // go on where the run in that folder was
  TrainMethod method = TrainMethod::kLora;
  TrainObjective objective = TrainObjective::kNextToken;

  int64_t iterations = 1000;
  int64_t batch_size = 4;   // rows of a step
  int64_t micro_batch = 0;  // of them, those that go through the model at once; 0: what fits
  int64_t sequence_length = 512;
  bool packing = true;
  std::string long_documents = "refuse";  // "truncate", "split"
  bool prompt_loss = false;               // whether prompts count
  bool chat_completion = true;  // whether prompt and completion are turns of a chat, or plain text
  double valid_fraction = 0;
  int64_t eval_every = 0;  // steps; 0: only at the end
  int64_t save_every = 0;  // steps; 0: only at the end and when stopped
  uint64_t seed = 0;

  std::string optimizer = "adamw";
  double learning_rate = 1e-4;
  std::string schedule = {};  // unset: "jagged" for relora, "cosine" otherwise
  int64_t warmup = 0;
  double min_lr_ratio = 0.1;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01, momentum = 0;
  double max_grad_norm = 1;  // 0: not clipped

  int64_t rank = 8;     // of adapters, and of the steps of rank1
  double alpha = 16;    // an adapter counts alpha / rank times
  bool rslora = false;  // or alpha / sqrt(rank)
  bool dora = false;    // of lora: rows have lengths of their own (arXiv 2402.09353)
  double dropout = 0;   // of what adapters see
  std::vector<std::string> targets = {};
  int64_t last_layers = 0;
  bool train_embeddings = false;  // beside relora and rank1
  bool train_norms = false;

  int64_t warm_start = 0;        // of relora: steps of full training before
  int64_t reset_every = 0;       // of relora: steps between merges
  int64_t reset_warmup = 50;     // steps back up to the schedule's rate
  double prune = 0.99;           // share of the optimizer's state of adapters that a merge zeroes
  int64_t merge_every = 1;       // of rank1: steps that share their directions
  bool reset_optimizer = false;  // of rank1: begin its state anew with each choice of directions
  Directions directions = Directions::kTop;

  // Of set blocks: the piece, or the id in digits, that stands for a masked token, and the tokens
  // of a block, of which each step draws one number for all.
  std::string mask_token = "<mask>";
  int64_t block_min = 2, block_max = 16;

  int64_t rank_every = 0;  // steps between measurements of what the updates are; 0: none
  // Sequences of either side of which it is measured, where the validation loss is and at the end,
  // what is known of them by heart; 0: none.
  int64_t track_memorization = 0;

  int threads = 0;  // 0: one per core
  // kFast: the operands of products with weights, and of those that make gradients, are rounded to
  // bf16 where the kernels multiply bf16 faster (docs/numerics.md), or, resumed, where the run was
  // begun with them. kExact: they are f32.
  Compute compute = Compute::kFast;
  // Keep what so many layers leave for their way back, and compute those before again, so many at a
  // time; 0: keep all; -1: what fits.
  int checkpoint_layers = -1;
  // Bytes that the run may take, by which micro_batch and checkpoint_layers are chosen where they
  // are open. 0: as much as the machine has free, in micro-batches of one row.
  int64_t max_memory = 0;
};

// What became of the documents.
struct DataReport {
  int64_t documents = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;           // of all sequences
  int64_t targets = 0;          // of these, tokens whose prediction counts
  int64_t longest = 0;          // tokens of the longest document
  int64_t truncated = 0;        // documents, and
  int64_t truncated_away = 0;   // the tokens that they lost
  int64_t split = 0;            // documents
  int64_t without_targets = 0;  // sequences left out, as nothing in them counts
};

// Bytes that a run holds at most, and what was chosen for it.
struct TrainMemory {
  int64_t micro_batch = 0;
  int checkpoint_layers = 0;
  int64_t weights = 0;      // the files; mapped, so that the system may drop and reread pages
  int64_t trained = 0;      // f32 values and gradients, and what rank_every keeps of them
  int64_t optimizer = 0;    // its state
  int64_t activations = 0;  // with their gradients, what the way back needs, and logits
  int64_t program = 0;      // tokenizer, data, buffers of products
  int64_t total() const { return weights + trained + optimizer + activations + program; }
};

// What the model knows of single sequences beyond what it knew before training (memorization.h).
struct TrackedMemorization {
  double bits = 0;                        // mean of a training sequence
  std::optional<double> valid_bits = {};  // and of one of the validation data
  // Share of the sequences whose second half greedy decoding gives after their first
  // (is_extracted() of memorization.h), of both.
  double extraction_rate = 0;
  std::optional<double> valid_extraction_rate = {};
  // How well these are told apart by what the model gained on them, per token.
  std::optional<double> auc = {};
};

// The two terms of the loss with set blocks.
struct SetBlockLoss {
  double next = 0;                    // nats per target, of the next token
  std::optional<double> masked = {};  // nats per masked token; none were
  double masked_share = 0;            // masked tokens to a target
};

// One line of metrics.jsonl.
struct TrainStep {
  int64_t step = 0;  // from 1
  double loss = 0;   // nats per target; with set blocks next + masked_share * masked
  double lr = 0;
  double tokens_per_second = 0;
  double grad_norm = 0;
  int64_t tokens = 0;  // of this step
  std::optional<double> valid_loss = {};
  std::optional<TrackedMemorization> memorization = {};
  std::optional<SetBlockLoss> set_block = {};  // where that is the objective
  int64_t block = 0;                           // and the tokens of a block in this step
  std::optional<SetBlockLoss> valid_set_block = {};
};

struct TrainResult {
  int64_t steps = 0;
  int64_t parameters = 0;  // that were trained
  double loss = 0;         // of the last step
  std::optional<double> valid_loss = {};
  std::optional<TrackedMemorization> memorization = {};  // at the end
  std::optional<SetBlockLoss> set_block = {};            // of the last step
  std::optional<SetBlockLoss> valid_set_block = {};
  double seconds = 0;
  int64_t tokens = 0;
  double tokens_per_second = 0;
  std::filesystem::path output;  // the adapter or the model that came of it
  TrainMemory memory;            // as forecast
  DataReport data;               // of training and validation together
  bool bf16 = false;             // whether operands of products were rounded to it
  int rank = 0;  // of mpirun's; the first, 0, writes the run's folder and the output
};

// A point within a step, for who looks at what it takes.
struct TrainMoment {
  enum class Kind : uint8_t {
    kForward,    // `layer` begins its forward pass
    kLoss,       // the logits are done with, the backward pass begins
    kBackward,   // `layer` is done with its backward pass
    kOptimizer,  // the gradients are complete
    kEnd,        // the values have moved
  };
  Kind kind = Kind::kForward;
  int layer = -1;
  int64_t step = 0;  // from 1
  // Where what is trained lies, values and gradients, and the optimizer's state.
  std::vector<std::span<const std::byte>> trained = {};
  std::vector<std::span<const std::byte>> optimizer = {};
};

// What a run tells while it goes on. All may be empty.
struct TrainEvents {
  std::function<void(const TrainMemory&)> begin = {};   // before the first step
  std::function<void(const TrainStep&)> step = {};      // after each
  std::function<void(const TrainMoment&)> moment = {};  // within each
  std::function<void(const DataReport&)> data = {};     // before the first step, too
};

// Runs to the end, or until `watch` asks to stop, and then leaves a state to resume from. Resumed
// equals never stopped, bit for bit. In the run folder:
//
//   config.json     the options, and `operands`, "bf16" or "f32"
//   metrics.jsonl   a line for each step: TrainStep, peak_rss_bytes
//   ranks.jsonl     with rank_every, a line for each matrix at each measurement (docs/training.md)
//   state/          weights, optimizer and position in the data, of the last save
//   adapter/        what was trained, with each state
//   model/          the same of methods that train a model, in the end
//
// Throws Error{kUsage} for options, Error{kInput} for model, data, and a resume whose options
// differ (with the differences) or whose operands the kernels cannot multiply, for a loss that is
// not finite (with the step; the last state stays), for values that are not (when they are to be
// saved, with the same), Error{kResource}, also when the run does not
// fit into memory, Error{kInterrupted} after the state was saved.
TrainResult train(const TrainOptions& options, const Watch& watch = {},
                  const TrainEvents& events = {});

}  // namespace lapidary
