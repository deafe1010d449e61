// Random tokens learnt by heart, and what is known of them.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "lapidary/capacity_study.h"
#include "lapidary/memorization.h"
#include "lapidary/synth.h"
#include "lapidary/train.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/rng.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "io/output_file.h"
#include "study/capacity_file.h"
#include "train/token_source.h"
#include "train/trainer.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr int kHeadDim = 16;
constexpr double kPlateau = 0.03;  // gains below this share are none
constexpr uint64_t kControlStream = uint64_t{1} << 32;

void check(const CapacityOptions& o) {
  if (o.sizes.empty()) fail_usage("--sizes: none given");
  if (o.loads.empty()) fail_usage("--loads: none given");
  for (const double load : o.loads)
    if (!(load > 0 && load <= 1000))
      fail_usage("--loads: {} bits per parameter given, expected more than 0, at most 1000", load);
  if (!std::ranges::is_sorted(o.loads)) fail_usage("--loads: they do not ascend");
  if (o.vocabulary < 2) fail_usage("--vocabulary: {} given, expected 2 or more", o.vocabulary);
  if (o.length < 2) fail_usage("--length: {} given, expected 2 or more", o.length);
  if (o.epochs < 2) fail_usage("--epochs: {} given, expected 2 or more", o.epochs);
  if (o.batch < 1) fail_usage("--batch-size: {} given, expected 1 or more", o.batch);
  for (const int64_t size : o.sizes) capacity_shape(size, o.vocabulary, o.layers);
}

// One model on one data set.
struct Cell {
  int64_t size = 0;
  double load = 0;
  int64_t epochs = 0;
};

class Study {
 public:
  // Runs remember their model's path: it is the same from wherever a study is taken up.
  Study(const CapacityOptions& options, const Watch& watch) : o_(options), watch_(watch) {
    o_.folder = fs::absolute(o_.folder);
  }

  CapacityStudy run();

 private:
  std::vector<CapacityRun> run(const std::vector<Cell>& cells);
  CapacityRun run(const Cell& cell, const Watch& watch);
  TrainOptions train_options(const Cell& cell, int64_t sequences) const;
  double memorized(const fs::path& model, const std::vector<std::vector<Token>>& sequences,
                   double* nats) const;
  void prepare() const;
  fs::path model(int64_t size) const { return o_.folder / std::to_string(size) / "model"; }
  fs::path folder(const Cell& cell) const {
    return o_.folder / std::to_string(cell.size) /
           fmt::format("load-{:g}-epochs-{}", cell.load, cell.epochs);
  }
  double bits_per_token() const { return std::log2(o_.vocabulary); }
  int64_t parameters(int64_t size) const { return load_model(model(size)).parameters; }
  int64_t sequences(int64_t parameters, double load) const {
    const double bits = static_cast<double>(o_.length - 1) * bits_per_token();
    return std::max<int64_t>(1, std::llround(load * static_cast<double>(parameters) / bits));
  }
  // Of a run; a step that would reach past the last epoch is not taken.
  int64_t steps(const Cell& cell, int64_t sequences) const {
    return std::max<int64_t>(1, sequences * cell.epochs / batch(sequences));
  }
  int64_t batch(int64_t sequences) const { return std::min(o_.batch, sequences); }

  CapacityOptions o_;
  const Watch& watch_;
  std::mutex mutex_;              // of what follows
  int64_t done_ = 0, total_ = 0;  // tokens
};

// The folder's models, and its options or that they are those given.
void Study::prepare() const {
  const fs::path file = o_.folder / "options.json";
  const OrderedJson now = to_json(o_);
  if (fs::exists(file)) {
    const OrderedJson before = read_ordered_json_file(file);
    for (const auto& [key, value] : now.items())
      if (key != "sizes" && key != "loads" && key != "epochs" &&
          before.value(key, OrderedJson()) != value)
        throw Error(ErrorKind::kInput,
                    fmt::format("{}: begun with {} {}, now {}", file.string(), key,
                                before.value(key, OrderedJson()).dump(), value.dump()),
                    "go on with the same options, or name another folder with -o");
  }
  std::error_code error;
  fs::create_directories(o_.folder, error);
  if (error) fail_resource("{}: cannot create: {}", o_.folder.string(), error.message());
  write_file(file, now.dump(2) + "\n");
  for (const int64_t size : o_.sizes)
    if (!fs::exists(model(size) / "config.json"))
      synthesize(capacity_shape(size, o_.vocabulary, o_.layers),
                 {.dtype = "f32", .seed = o_.seed, .threads = 1}, model(size));
}

TrainOptions Study::train_options(const Cell& cell, int64_t sequences) const {
  const int64_t all = steps(cell, sequences);
  return {.model = model(cell.size),
          .data = fmt::format("{} random sequences", sequences),
          .run = folder(cell) / "train",
          .resume = fs::exists(folder(cell) / "train" / "config.json"),
          .method = TrainMethod::kFull,
          .iterations = all,
          .batch_size = batch(sequences),
          .micro_batch = batch(sequences),
          .sequence_length = o_.length,
          .save_every = std::max<int64_t>(1, all / 20),
          .seed = o_.seed,
          .optimizer = o_.optimizer,
          .learning_rate = o_.learning_rate,
          .schedule = "cosine",
          .warmup = std::min<int64_t>(100, all / 10),
          .min_lr_ratio = 0,
          .beta2 = 0.99,
          .weight_decay = o_.weight_decay,
          .max_grad_norm = 0,
          .threads = 1,
          .compute = Compute::kExact,
          .checkpoint_layers = 0};
}

// Bits of the sequences that the model holds; `nats` becomes the sum of their losses.
double Study::memorized(const fs::path& folder, const std::vector<std::vector<Token>>& sequences,
                        double* nats) const {
  const Model model = load_model(folder);
  Executor ex(best_kernels(), 1);
  Backprop backprop(ex, model.config, model.weights, o_.length, 0);
  const double uniform = static_cast<double>(o_.length - 1) * std::log(o_.vocabulary);
  double bits = 0;
  *nats = 0;
  for (const std::vector<Token>& tokens : sequences) {
    std::vector<Token> targets(tokens.begin() + 1, tokens.end());
    targets.push_back(kNoTarget);
    const double of_it = backprop.evaluate({tokens, targets, {&o_.length, 1}}).nats;
    bits += memorized_bits(uniform, of_it);
    *nats += of_it;
  }
  return bits;
}

CapacityRun Study::run(const Cell& cell, const Watch& watch) {
  const fs::path result = folder(cell) / "result.json";
  if (fs::exists(result)) return read_capacity_run(result);
  CapacityRun run{.size = cell.size, .load = cell.load, .parameters = parameters(cell.size)};
  run.sequences = sequences(run.parameters, cell.load);
  run.tokens = run.sequences * (o_.length - 1);
  run.data_bits = static_cast<double>(run.tokens) * bits_per_token();
  run.epochs = cell.epochs;
  const auto data = random_sequences(run.sequences, o_.length, o_.vocabulary, o_.seed, 0);
  const TrainResult trained = train_on(token_data(data), train_options(cell, run.sequences), watch);
  run.steps = trained.steps;
  run.seconds = trained.seconds;
  double nats = 0;
  run.memorized_bits = memorized(trained.output, data, &nats);
  run.loss = nats / static_cast<double>(run.tokens);
  run.control_bits = memorized(
      trained.output,
      random_sequences(run.sequences, o_.length, o_.vocabulary, o_.seed, kControlStream), &nats);
  write_file(result, to_json(run).dump(2) + "\n");
  return run;
}

// Each thread takes the longest cell that is left. The first error stops all, and is thrown when
// they have.
std::vector<CapacityRun> Study::run(const std::vector<Cell>& cells) {
  std::vector<CapacityRun> runs(cells.size());
  std::vector<int64_t> tokens;  // that a cell's training reads
  std::vector<size_t> order;
  for (const Cell& cell : cells) {
    const int64_t count = sequences(parameters(cell.size), cell.load);
    order.push_back(tokens.size());
    tokens.push_back(steps(cell, count) * batch(count) * o_.length);
    total_ += tokens.back();
  }
  std::ranges::stable_sort(order, std::greater(),
                           [&](size_t i) { return tokens[i] * cells[i].size; });

  std::atomic<size_t> next = 0;
  std::exception_ptr error;
  std::stop_source stop;
  const std::stop_callback outer(watch_.stop, [&] { stop.request_stop(); });
  const auto work = [&] {
    for (size_t at = next++; at < order.size() && !stop.stop_requested(); at = next++) try {
        const size_t i = order[at];
        int64_t before = 0;
        const auto tell = [&](int64_t done, int64_t all) {
          const std::lock_guard lock(mutex_);
          done_ += tokens[i] / all * (done - std::exchange(before, done));
          watch_.report(done_, total_);
        };
        runs[i] = run(cells[i], Watch{tell, stop.get_token()});
        if (before == 0) tell(1, 1);  // it was there already
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error) error = std::current_exception();
        stop.request_stop();
      }
  };
  {
    std::vector<std::jthread> workers;
    const int threads = o_.threads > 0 ? o_.threads : cpu_budget().threads();
    for (int i = 1; i < threads; ++i) workers.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
  watch_.throw_if_stopped();
  return runs;
}

double gain(double more, double less) {
  return less > 0 ? more / less - 1 : 1;
}

// `runs` are of one size, by load; `half` has the last one's data.
CapacityOfSize capacity_of(std::span<const CapacityRun> runs, const CapacityRun& half) {
  const CapacityRun& best = *std::ranges::max_element(runs, {}, &CapacityRun::memorized_bits);
  CapacityOfSize size{.parameters = best.parameters, .capacity_bits = best.memorized_bits};
  size.gain_of_training = gain(runs.back().memorized_bits, half.memorized_bits);
  size.training_plateau = size.gain_of_training < kPlateau;
  if (runs.size() > 1) {
    size.gain_of_data = gain(runs.back().memorized_bits, runs[runs.size() - 2].memorized_bits);
    size.data_plateau = size.gain_of_data < kPlateau;
  }
  return size;
}

void fit(CapacityStudy& study) {
  double xy = 0, xx = 0;
  for (const CapacityOfSize& size : study.sizes) {
    const auto x = static_cast<double>(size.parameters);
    xy += x * size.capacity_bits;
    xx += x * x;
  }
  study.bits_per_parameter = xy / xx;
  for (const CapacityOfSize& size : study.sizes)
    study.largest_residual = std::max(
        study.largest_residual, std::abs(size.bits_per_parameter() / study.bits_per_parameter - 1));
}

CapacityStudy Study::run() {
  check(o_);
  prepare();
  std::vector<Cell> cells;
  for (const int64_t size : o_.sizes) {
    for (const double load : o_.loads) cells.push_back({size, load, o_.epochs});
    cells.push_back({size, o_.loads.back(), o_.epochs / 2});
  }
  const std::vector<CapacityRun> runs = run(cells);
  CapacityStudy study;
  study.options = o_;
  for (auto first = runs.begin(); first != runs.end();) {
    const auto half = first + std::ssize(o_.loads);
    study.runs.insert(study.runs.end(), first, half);
    study.halves.push_back(*half);
    study.sizes.push_back(capacity_of({first, half}, *half));
    first = half + 1;
  }
  fit(study);
  return study;
}

}  // namespace

Config capacity_shape(int64_t parameters, int vocabulary, int layers) {
  // As wide as an MLP of the same width allows; the MLP takes what is left.
  const auto without_mlp = [&](int64_t d) {
    return (vocabulary + 1) * d + layers * (2 * d * (d + kHeadDim) + 4 * d + 2 * kHeadDim);
  };
  const auto least = [&](int64_t d) { return without_mlp(d) + layers * 3 * d * d; };
  int64_t d = kHeadDim;
  if (least(d) > parameters)
    fail_usage(
        "--sizes: {} parameters are too few for {} layers and a vocabulary of {}, which take {}",
        parameters, layers, vocabulary, least(d));
  while (least(d + kHeadDim) <= parameters) d += kHeadDim;
  const auto unit = static_cast<double>(layers * 3 * d * kHeadDim);
  const auto units = std::lround(static_cast<double>(parameters - without_mlp(d)) / unit);
  return with_overrides(preset("gemma-3-270m"), {.layers = layers,
                                                 .hidden = static_cast<int>(d),
                                                 .ffn = static_cast<int>(units) * kHeadDim,
                                                 .heads = static_cast<int>(d) / kHeadDim,
                                                 .kv_heads = 1,
                                                 .head_dim = kHeadDim,
                                                 .vocab = vocabulary});
}

std::vector<std::vector<Token>> random_sequences(int64_t count, int64_t length, int vocabulary,
                                                 uint64_t seed, uint64_t stream) {
  std::vector<std::vector<Token>> sequences;
  for (int64_t i = 0; i < count; ++i) {
    const CounterRng rng(mix64(seed) ^ stream, static_cast<uint64_t>(i));
    std::vector<Token>& tokens = sequences.emplace_back(static_cast<size_t>(length));
    for (size_t k = 0; k < tokens.size(); ++k)
      tokens[k] = static_cast<Token>(rng.uniform(k) * vocabulary);
  }
  return sequences;
}

CapacityStudy study_capacity(const CapacityOptions& options, const Watch& watch) {
  return Study(options, watch).run();
}

}  // namespace lapidary
