// The loop of training.
#include "train/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "lapidary/engine.h"
#include "lapidary/log.h"
#include "lapidary/train.h"

#include "base/clock.h"
#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/rng.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "train/batches.h"
#include "train/check_options.h"
#include "train/data.h"
#include "train/gradients.h"
#include "train/memorization_track.h"
#include "train/memory.h"
#include "train/method.h"
#include "train/rank_evolution.h"
#include "train/ranks.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/set_blocks.h"

namespace lapidary {

namespace {

constexpr uint64_t kDropoutSeed = 0x64726f70;

DataOptions data_options(const TrainOptions& o, const std::optional<SetBlockTraining>& blocks) {
  DocumentOptions documents{.prompt_loss = o.prompt_loss, .chat_completion = o.chat_completion};
  if (blocks) documents.reserved = blocks->mask_token_id;
  return {.sequence_length = o.sequence_length,
          .long_documents = long_documents(o.long_documents),
          .documents = documents,
          .valid_fraction = o.valid_fraction,
          .seed = o.seed};
}

BatchOptions batch_options(const TrainOptions& o, const Ranks& ranks) {
  return {.rows = o.micro_batch,
          .sequence_length = o.sequence_length,
          .packing = o.packing,
          .seed = o.seed,
          .rank = ranks.rank(),
          .ranks = ranks.count()};
}

Schedule schedule_of(const TrainOptions& o) {
  return Schedule({.kind = schedule_kind(schedule_name(o)),
                   .lr = o.learning_rate,
                   .steps = o.iterations,
                   .warmup_steps = o.warmup,
                   .min_ratio = o.min_lr_ratio,
                   .restart_every = o.reset_every,
                   .restart_warmup = o.reset_warmup});
}

OptimizerOptions optimizer_options(const TrainOptions& o) {
  const OptimizerOptions options{.kind = optimizer_kind(o.optimizer),
                                 .beta1 = o.beta1,
                                 .beta2 = o.beta2,
                                 .eps = o.eps,
                                 .weight_decay = o.weight_decay,
                                 .momentum = o.momentum,
                                 .seed = o.seed};
  options.check();
  return options;
}

double mean_of(const Loss& loss) {
  return (loss.nats + loss.masked_nats) / static_cast<double>(loss.tokens);
}

SetBlockLoss terms_of(const Loss& loss) {
  const auto targets = static_cast<double>(loss.tokens);
  const auto masked = static_cast<double>(loss.masked_tokens);
  SetBlockLoss terms{.next = loss.nats / targets, .masked_share = masked / targets};
  if (masked > 0) terms.masked = loss.masked_nats / masked;
  return terms;
}

void add(const Loss& part, Loss& sum) {
  sum.nats += part.nats;
  sum.tokens += part.tokens;
  sum.masked_nats += part.masked_nats;
  sum.masked_tokens += part.masked_tokens;
}

Loss add_up(Ranks& ranks, const Loss& own) {
  std::array<double, 4> sums = {own.nats, static_cast<double>(own.tokens), own.masked_nats,
                                static_cast<double>(own.masked_tokens)};
  ranks.add_up(sums);
  return {sums[0], static_cast<int64_t>(sums[1]), sums[2], static_cast<int64_t>(sums[3])};
}

// The first rank makes the folder; the others only read what there is to resume.
RunFolder open_folder(TrainOptions o, const TrainingData& data, Ranks& ranks) {
  if (!ranks.first()) {
    ranks.meet();
    o.resume = true;
  }
  RunFolder folder(o, data.fingerprint, data.report);
  if (!ranks.first()) return folder;
  folder.lock();
  folder.clear_leftovers();
  ranks.meet();
  return folder;
}

// The layer of a parameter, "model.layers.7.mlp.up_proj.weight", or nothing for those outside.
std::optional<int> layer_of(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return std::nullopt;
  return std::stoi(name.substr(kLayers.size()));
}

// A run goes on with the sums it was begun with.
TrainOptions begun(TrainOptions o) {
  if (o.resume && o.micro_batch == 0) o.micro_batch = RunFolder::micro_batch(o.run);
  if (best_kernels().gemm_bf16 == nullptr) o.compute = Compute::kExact;  // as a new one notes
  return o;
}

// What is odd about the run, and no error.
void remark(const TrainOptions& o, const Model& model, const TrainingData& data) {
  const CpuBudget budget = cpu_budget();
  const int threads = o.threads > 0 ? o.threads : budget.threads();
  log(LogLevel::kDebug,
      fmt::format("{} kernels; {} threads; {}", best_kernels().isa, threads, budget.explanation()));
  warn_of_threads(threads, budget);
  const int64_t longest = std::min(data.report.longest, o.sequence_length);
  if (const int64_t context = model.config.max_position_embeddings; longest > context)
    log(LogLevel::kWarning,
        fmt::format("--sequence-length: sequences of {} tokens go beyond the context of {} that "
                    "the model was made for",
                    longest, context));
}

// What config.json says, which may be of another machine or rank.
Operands operands_of(const TrainOptions& asked, const Kernels& kernels) {
  if (asked.compute == Compute::kExact || !RunFolder::bf16(asked.run)) return Operands::kFloat;
  if (kernels.gemm_bf16 == nullptr)
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: the run was begun with operands of bf16, which the kernels in use, "
                    "{}, do not multiply",
                    asked.run.string(), kernels.isa),
        "--compute exact goes on with f32; CPUs with AMX multiply bf16, and AMD's with "
        "AVX512-BF16");
  return Operands::kBFloat16;
}

class Trainer {
 public:
  // On `data`, or where that is empty on what the options name.
  Trainer(const TrainOptions& options, const Watch& watch, TrainingData data = {})
      : o_(begun(options)),
        watch_(watch),
        schedule_(schedule_of(options)),
        model_(load_model(options.model)),
        ex_(best_kernels(), options.threads > 0 ? options.threads : cpu_budget().threads()),
        tokenizer_(data.train ? std::nullopt : std::optional(load_tokenizer(options.model))),
        set_blocks_(
            set_blocks(options, model_.config, tokenizer_.has_value() ? &*tokenizer_ : nullptr)),
        data_(data.train ? std::move(data)
                         : open_data(options.data, *tokenizer_, data_options(options, set_blocks_),
                                     ex_.pool(), Watch{{}, watch.stop})),
        memory_(memory_for(o_, model_, data_)),
        optimizer_options_(optimizer_options(o_)),
        method_(make_method(o_, model_, o_.model, set_blocks_)),
        folder_(open_folder(o_, data_, ranks_)),
        operands_(operands_of(options, ex_.kernels())) {}

  TrainResult run(const TrainEvents& events);

 private:
  // Of options that the data bears out.
  static TrainMemory memory_for(TrainOptions& options, const Model& model,
                                const TrainingData& data) {
    check_options(options, data);
    return choose_memory(options, model);
  }
  void take_up();
  void choose_parameters();
  void begin_tracking();
  void evaluate(TrainStep& done);
  TrainStep step();
  std::vector<Batch> next_batches();
  Loss gradients(const std::vector<Batch>& batches, int64_t targets);
  void check_finite(double loss, double norm) const;
  void check_values() const;
  Loss valid_loss();
  void save();
  std::vector<StateArray> state();
  void tell(TrainMoment::Kind kind, int layer = -1);

  Ranks ranks_;  // first made, and last to end
  TrainOptions o_;
  const Watch& watch_;
  Schedule schedule_;
  Model model_;
  Executor ex_;
  std::optional<Tokenizer> tokenizer_;          // of data that is read from files
  std::optional<SetBlockTraining> set_blocks_;  // where they are the objective
  TrainingData data_;
  TrainMemory memory_;
  OptimizerOptions optimizer_options_;
  std::unique_ptr<Method> method_;
  RunFolder folder_;  // after all that an option may be refused by
  Operands operands_;
  RunPosition position_;
  std::unique_ptr<BatchStream> batches_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Backprop> backprop_;
  std::unique_ptr<RankEvolution> evolution_;  // where asked for
  std::vector<double> cosines_;               // of the last step that it watched
  std::function<void(const TrainMoment&)> moment_;
  std::unique_ptr<MemorizationTrack> track_;  // where asked for, on the first rank
};

void Trainer::tell(TrainMoment::Kind kind, int layer) {
  if (!moment_) return;
  TrainMoment moment{.kind = kind, .layer = layer, .step = position_.step + 1};
  std::set<const std::byte*> known;  // a matrix may be a parameter, and its values part of a state
  const auto add = [&](std::span<const std::byte> piece) {
    if (known.insert(piece.data()).second) moment.trained.push_back(piece);
  };
  for (const StateArray& array : method_->state()) add(array.bytes);
  for (const Parameter& p : method_->parameters()) add(std::as_bytes(p.grad));
  for (const TrainedMatrix& m : method_->matrices()) add(std::as_bytes(m.grad));
  for (const StateArray& array : optimizer_->state()) moment.optimizer.push_back(array.bytes);
  moment_(moment);
}

std::vector<StateArray> Trainer::state() {
  std::vector<StateArray> arrays = method_->state();
  for (StateArray& array : optimizer_->state()) arrays.push_back(std::move(array));
  if (evolution_)
    for (StateArray& array : evolution_->state()) arrays.push_back(std::move(array));
  return arrays;
}

void Trainer::choose_parameters() {
  if (!method_->choose(position_.step) && optimizer_ != nullptr) return;
  optimizer_.reset();  // before the next ones take memory
  backprop_.reset();
  optimizer_ = make_optimizer(optimizer_options_, method_->parameters());
  backprop_ = std::make_unique<Backprop>(ex_, model_.config, model_.weights, rows_at_once(o_),
                                         o_.checkpoint_layers, operands_);
  for (const Parameter& p : method_->parameters())
    backprop_->tape().track(p.value.data(), p.size(), p.grad.data());
  if (!moment_) return;
  backprop_->on_layer([this](int layer, bool backward) {
    using Kind = TrainMoment::Kind;
    const bool loss = layer == model_.config.num_hidden_layers;
    tell(!backward ? Kind::kForward : loss ? Kind::kLoss : Kind::kBackward, layer);
  });
}

// With the weights of before the first step, also in a run that is taken up.
void Trainer::begin_tracking() {
  if (o_.track_memorization > 0 && ranks_.first())
    track_ = std::make_unique<MemorizationTrack>(data_, o_.track_memorization, *backprop_,
                                                 Watch{{}, watch_.stop});
}

void Trainer::take_up() {
  if (o_.rank_every > 0)
    evolution_ = std::make_unique<RankEvolution>(o_, model_, method_->matrices());
  if (const auto saved = folder_.position()) {
    position_ = *saved;
    if (position_.data_fingerprint != data_.fingerprint)
      fail("{}: the data is not what the run was begun with", o_.data.string());
    choose_parameters();
    begin_tracking();
    folder_.restore(state());
  } else {
    position_.data_fingerprint = data_.fingerprint;
    choose_parameters();
    begin_tracking();
  }
  if (ranks_.first()) folder_.begin_metrics(position_.step);
  batches_ = std::make_unique<BatchStream>(*data_.train, batch_options(o_, ranks_), position_.data);
}

// Returns the loss of this rank. `targets` are all ranks', to add up to the mean over all. The sums
// over the ranks begin as soon as the last batch is through with a layer.
Loss Trainer::gradients(const std::vector<Batch>& batches, int64_t targets) {
  const auto begin_adding_up = [this](std::optional<int> layer) {
    for (const Parameter& p : method_->parameters())
      if (layer_of(p.name) == layer) ranks_.begin_adding_up(p.grad);
  };
  std::function<void(int)> after;
  // A rank that left within a step would leave the others waiting.
  const Watch alone = ranks_.count() > 1 ? Watch{} : watch_;
  Loss loss;
  for (size_t i = 0; i < batches.size(); ++i) {
    const uint64_t key =
        mix64(mix64(o_.seed ^ kDropoutSeed) ^ (static_cast<uint64_t>(position_.step) * 65536 + i));
    backprop_->tape().set_dropout(o_.dropout, mix64(key + static_cast<uint64_t>(ranks_.rank())));
    if (ranks_.count() > 1 && i + 1 == batches.size()) after = begin_adding_up;
    const auto scale = static_cast<float>(1 / static_cast<double>(targets));
    add(backprop_->run(batches[i].documents(), scale, alone, after), loss);
  }
  begin_adding_up(std::nullopt);
  ranks_.finish();
  return loss;
}

std::vector<Batch> Trainer::next_batches() {
  std::vector<Batch> batches;
  for (int64_t row = 0; row < o_.batch_size; row += o_.micro_batch)
    batches.push_back(batches_->next());
  if (set_blocks_) {
    const int64_t block = block_of_step(*set_blocks_, o_.seed, position_.step);
    for (Batch& batch : batches) batch = with_noisy_copies(batch, *set_blocks_, o_.seed, block);
  }
  return batches;
}

void Trainer::check_finite(double loss, double norm) const {
  if (std::isfinite(loss) && std::isfinite(norm)) return;
  const auto saved = folder_.position();
  throw Error(ErrorKind::kInput,
              fmt::format("step {}: the loss is {}, the norm of the gradient {}",
                          position_.step + 1, loss, norm),
              saved ? fmt::format("the state of step {} is in {}; a lower learning rate or "
                                  "stronger clipping may help",
                                  saved->step, folder_.path().string())
                    : "a lower learning rate or stronger clipping may help");
}

// A state that no step goes on from must not take the place of one that can, and a result that is
// no model not that of one.
void Trainer::check_values() const {
  for (const StateArray& array : method_->state()) {
    if (array.dtype != DType::kF32) continue;
    const std::span values(reinterpret_cast<const float*>(array.bytes.data()),
                           static_cast<size_t>(array.elements));
    if (std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) continue;
    const auto saved = folder_.position();
    throw Error(
        ErrorKind::kInput,
        fmt::format("step {}: '{}' has values that are not finite", position_.step, array.name),
        fmt::format("{}a lower learning rate or stronger clipping may help",
                    saved ? fmt::format("the state of step {} is in {}; ", saved->step,
                                        folder_.path().string())
                          : ""));
  }
}

TrainStep Trainer::step() {
  const Stopwatch clock;
  choose_parameters();
  const std::vector<Batch> batches = next_batches();
  std::array<double, 2> counts = {};  // targets, tokens
  for (const Batch& batch : batches) {
    counts[0] += static_cast<double>(batch.target_count());
    counts[1] += static_cast<double>(batch.token_count());
  }
  ranks_.add_up(counts);
  const auto targets = static_cast<int64_t>(counts[0]), tokens = static_cast<int64_t>(counts[1]);
  for (const Parameter& p : method_->parameters()) std::fill(p.grad.begin(), p.grad.end(), 0.0f);
  std::unique_ptr<UpdateCosines> update;
  if (evolution_ && evolution_->due(position_.step + 1))
    update = evolution_->watch_step(backprop_->tape());
  const Loss loss = add_up(ranks_, gradients(batches, targets));
  if (update) {
    for (const std::span<float> gradient : update->own_gradients())
      ranks_.begin_adding_up(gradient);
    ranks_.finish();
    update->before_step();
  }
  method_->gradients(position_.step, ex_);
  const double norm = o_.max_grad_norm > 0
                          ? clip_gradients(method_->parameters(), o_.max_grad_norm, ex_.pool())
                          : gradient_norm(method_->parameters(), ex_.pool());
  const double mean = mean_of(loss);
  check_finite(mean, norm);
  if (ranks_.smallest(norm) != ranks_.largest(norm))
    fail_resource("step {}: the ranks have other gradients; are their machines and programs alike?",
                  position_.step + 1);
  const double lr = schedule_.lr(position_.step);
  tell(TrainMoment::Kind::kOptimizer);
  optimizer_->step(method_->parameters(), lr, ex_);
  tell(TrainMoment::Kind::kEnd);
  if (update && ranks_.first()) cosines_ = update->after_step(ex_.pool());
  method_->end(++position_.step, *optimizer_, ex_);
  position_.data = batches_->position();
  position_.tokens += tokens;
  position_.seconds += clock.seconds();
  TrainStep done{.step = position_.step,
                 .loss = mean,
                 .lr = lr,
                 .tokens_per_second = static_cast<double>(tokens) / clock.seconds(),
                 .grad_norm = norm,
                 .tokens = tokens};
  if (set_blocks_) {
    done.set_block = terms_of(loss);
    done.block = batches.front().blocks.front();
  }
  return done;
}

// The noisy copies of validation are the same each time.
Loss Trainer::valid_loss() {
  BatchOptions options = batch_options(o_, ranks_);
  options.shuffle = false;
  options.repeat = false;
  BatchStream stream(*data_.valid, options);
  Loss loss;
  const Watch alone = ranks_.count() > 1 ? Watch{} : watch_;
  while (!stream.done()) {
    Batch batch = stream.next();
    if (batch.tokens.empty()) continue;  // the rows are out on this rank
    if (set_blocks_) batch = with_noisy_copies(batch, *set_blocks_, o_.seed, 0);
    add(backprop_->evaluate(batch.documents(), alone), loss);
  }
  return add_up(ranks_, loss);
}

// What is measured now and then, and at the end.
void Trainer::evaluate(TrainStep& done) {
  if (data_.valid) {
    const Loss loss = valid_loss();
    done.valid_loss = mean_of(loss);
    if (set_blocks_) done.valid_set_block = terms_of(loss);
  }
  if (track_) done.memorization = track_->measure(*backprop_, watch_);
}

void Trainer::save() {
  if (!ranks_.first()) return;
  check_values();
  folder_.save(position_, state());
  // The last step's comes at the end.
  if (method_->small() && position_.step < o_.iterations) method_->write(folder_.path(), ex_);
  folder_.write_report();
}

// What a result says of its last step.
void keep_loss(const TrainStep& step, TrainResult& result) {
  result.loss = step.loss;
  result.set_block = step.set_block;
}
void keep_measured(const TrainStep& step, TrainResult& result) {
  result.valid_loss = step.valid_loss;
  result.memorization = step.memorization;
  result.valid_set_block = step.valid_set_block;
}

TrainResult Trainer::run(const TrainEvents& events) {
  if (ranks_.first()) {
    remark(o_, model_, data_);
    if (events.data) events.data(data_.report);
    if (events.begin) events.begin(memory_);
  }
  moment_ = events.moment;
  take_up();
  TrainResult result;
  result.memory = memory_;
  result.data = data_.report;
  result.bf16 = operands_ == Operands::kBFloat16;
  for (const Parameter& p : method_->parameters()) result.parameters += p.size();
  // A finished run that is resumed: nothing is left to do, and save() checks nothing.
  if (ranks_.first() && position_.step == o_.iterations) {
    check_values();
    if (const auto before = folder_.last_step()) {
      keep_loss(*before, result);
      keep_measured(*before, result);
    }
  }
  while (position_.step < o_.iterations) {
    TrainStep done;
    try {
      if (ranks_.any(watch_.stop.stop_requested()))
        throw Error(ErrorKind::kInterrupted, "interrupted");
      done = step();
    } catch (const Error& error) {
      // Between steps everything is whole; within one, the gradients are lost and nothing else.
      if (error.kind() == ErrorKind::kInterrupted) {
        save();
        ranks_.leave();
      }
      throw;
    }
    const bool last = position_.step == o_.iterations;
    if (last || (o_.eval_every > 0 && position_.step % o_.eval_every == 0)) {
      evaluate(done);
      keep_measured(done, result);
    }
    if (ranks_.first()) {
      if (evolution_ && evolution_->due(position_.step))
        folder_.log_ranks(evolution_->measure(position_.step, method_->merges(position_.step),
                                              cosines_, ex_.pool()));
      folder_.log(done);
      if (events.step) events.step(done);
      watch_.report(position_.step, o_.iterations);
    }
    keep_loss(done, result);
    if (last || (o_.save_every > 0 && position_.step % o_.save_every == 0)) save();
  }
  result.steps = position_.step;
  result.seconds = position_.seconds;
  result.tokens = position_.tokens;
  result.tokens_per_second = static_cast<double>(position_.tokens) / position_.seconds;
  if (ranks_.first()) result.output = method_->write(folder_.path(), ex_);
  result.rank = ranks_.rank();
  return result;
}

}  // namespace

TrainResult train(const TrainOptions& options, const Watch& watch, const TrainEvents& events) {
  check_options(options);
  return Trainer(options, watch).run(events);
}

TrainResult train_on(TrainingData data, const TrainOptions& options, const Watch& watch,
                     const TrainEvents& events) {
  check_options(options);
  return Trainer(options, watch, std::move(data)).run(events);
}

}  // namespace lapidary
