// Random tokens learnt by heart, and what is known of them.
#include <algorithm>
#include <cmath>
#include <span>

#include "lapidary/capacity_study.h"
#include "lapidary/memorization.h"

#include "base/fail.h"
#include "base/rng.h"
#include "io/output_file.h"
#include "study/capacity_file.h"
#include "study/capacity_model.h"
#include "study/training_cells.h"
#include "train/token_source.h"
#include "train/trainer.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kControlStream = uint64_t{1} << 32;

void check(const CapacityOptions& o) {
  if (o.loads.empty()) fail_usage("--loads: none given");
  check_amounts(o.sizes, o.loads);
  if (o.vocabulary < 2) fail_usage("--vocabulary: {} given, expected 2 or more", o.vocabulary);
  if (o.epochs < 2) fail_usage("--epochs: {} given, expected 2 or more", o.epochs);
  check_recipe(o.recipe, 2);
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
  CapacityRun run(const Cell& cell, const Watch& watch) const;
  double memorized(SequenceReader& reader, const std::vector<std::vector<Token>>& sequences,
                   double* nats) const;
  fs::path model(int64_t size) const { return o_.folder / std::to_string(size) / "model"; }
  fs::path folder(const Cell& cell) const {
    return o_.folder / std::to_string(cell.size) /
           fmt::format("load-{:g}-epochs-{}", cell.load, cell.epochs);
  }
  double bits_per_token() const { return std::log2(o_.vocabulary); }
  int64_t parameters(int64_t size) const { return load_model(model(size)).parameters; }
  int64_t sequences(int64_t parameters, double load) const {
    return sequences_of_load(load, parameters, o_.recipe.length, o_.vocabulary);
  }
  // Of a run; a step that would reach past the last epoch is not taken.
  int64_t steps(const Cell& cell, int64_t sequences) const {
    return std::max<int64_t>(1, sequences * cell.epochs / step_sequences(o_.recipe, sequences));
  }

  CapacityOptions o_;
  const Watch& watch_;
};

// Bits of the sequences that the model holds; `nats` becomes the sum of their losses.
double Study::memorized(SequenceReader& reader, const std::vector<std::vector<Token>>& sequences,
                        double* nats) const {
  const double uniform = static_cast<double>(o_.recipe.length - 1) * std::log(o_.vocabulary);
  double bits = 0;
  *nats = 0;
  for (const std::vector<Token>& tokens : sequences) {
    const double of_it = reader.read(tokens).loss.nats;
    bits += memorized_bits(uniform, of_it);
    *nats += of_it;
  }
  return bits;
}

CapacityRun Study::run(const Cell& cell, const Watch& watch) const {
  const fs::path result = folder(cell) / "result.json";
  if (fs::exists(result)) return read_capacity_run(result);
  CapacityRun run{.size = cell.size, .load = cell.load, .parameters = parameters(cell.size)};
  run.sequences = sequences(run.parameters, cell.load);
  run.tokens = run.sequences * (o_.recipe.length - 1);
  run.data_bits = static_cast<double>(run.tokens) * bits_per_token();
  run.epochs = cell.epochs;
  const auto data =
      random_sequences(run.sequences, o_.recipe.length, o_.vocabulary, o_.recipe.seed, 0);
  const TrainResult trained =
      train_on(token_data(data),
               training_of(o_.recipe, "random sequences", model(cell.size), folder(cell) / "train",
                           run.sequences, steps(cell, run.sequences)),
               watch);
  run.steps = trained.steps;
  run.seconds = trained.seconds;
  SequenceReader reader(trained.output, o_.recipe.length);
  double nats = 0;
  run.memorized_bits = memorized(reader, data, &nats);
  run.loss = nats / static_cast<double>(run.tokens);
  run.control_bits = memorized(reader,
                               random_sequences(run.sequences, o_.recipe.length, o_.vocabulary,
                                                o_.recipe.seed, kControlStream),
                               &nats);
  write_file(result, to_json(run).dump(2) + "\n");
  return run;
}

std::vector<CapacityRun> Study::run(const std::vector<Cell>& cells) {
  std::vector<CapacityRun> runs(cells.size());
  std::vector<TrainingCell> work;
  for (size_t i = 0; i < cells.size(); ++i) {
    const Cell& cell = cells[i];
    const int64_t count = sequences(parameters(cell.size), cell.load);
    work.push_back(
        {.tokens = steps(cell, count) * step_sequences(o_.recipe, count) * o_.recipe.length,
         .weight = static_cast<double>(cell.size),
         .run = [this, &run = runs[i], &cell](const Watch& w) { run = this->run(cell, w); }});
  }
  run_cells(work, o_.threads, watch_);
  return runs;
}

// Whether data that brings no more can mean that no more is held: it must have grown.
bool shows_plateau(const CapacityRun& before, const CapacityRun& after) {
  return after.data_bits >= 1.1 * before.data_bits;
}

// `runs` are of one size, by load; `half` has the last one's data.
CapacityOfSize capacity_of(std::span<const CapacityRun> runs, const CapacityRun& half) {
  const CapacityRun& best = *std::ranges::max_element(runs, {}, &CapacityRun::memorized_bits);
  CapacityOfSize size{.parameters = best.parameters, .capacity_bits = best.memorized_bits};
  size.gain_of_training = gain(runs.back().memorized_bits, half.memorized_bits);
  size.training_plateau = size.gain_of_training < kPlateauGain;
  if (runs.size() > 1) {
    const CapacityRun& before = runs[runs.size() - 2];
    size.gain_of_data = gain(runs.back().memorized_bits, before.memorized_bits);
    size.data_plateau = *size.gain_of_data < kPlateauGain && shows_plateau(before, runs.back());
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
  const FolderLock lock = begin_study(o_.folder, to_json(o_), {"sizes", "loads", "epochs"});
  for (const int64_t size : o_.sizes)
    make_capacity_model(size, o_.vocabulary, o_.layers, o_.recipe.seed, model(size));
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
