// Models trained on growing amounts of a text, and what each knows of it by heart.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "lapidary/capacity_study.h"
#include "lapidary/text_capacity_study.h"

#include "base/fail.h"
#include "io/output_file.h"
#include "study/capacity_model.h"
#include "study/text_capacity_file.h"
#include "study/training_cells.h"
#include "train/token_source.h"
#include "train/trainer.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr double kFirstLoad = 0.25;  // of those that are not given

void check(const TextCapacityOptions& o) {
  check_amounts(o.sizes, o.loads);
  if (o.steps < 2) fail_usage("--steps: {} given, expected 2 or more", o.steps);
  check_recipe(o.recipe, 4);
  if (o.held_out < 1) fail_usage("--held-out: {} given, expected 1 or more", o.held_out);
  if (!(o.capacity > 0)) fail_usage("--capacity: {} given, expected more than 0", o.capacity);
}

// One model on one amount of text.
struct Cell {
  size_t size = 0;  // its place in TextCapacityOptions::sizes
  std::string name;
  int64_t sequences = 0;
  int64_t steps = 0;
  TrainResult trained = {};
  TextCapacityRun run = {};
};

class Study {
 public:
  // Runs remember their model's path: it is the same from wherever a study is taken up.
  Study(const TextCapacityOptions& options, const Watch& watch)
      : o_(options),
        watch_(watch),
        text_(
            text_sequences(o_.text, o_.tokenizer, o_.recipe.length, o_.held_out, o_.recipe.seed)) {
    o_.folder = fs::absolute(o_.folder);
  }

  TextCapacityStudy run();

 private:
  void add_cells(size_t size);
  std::vector<double> loads(int64_t parameters) const;
  void train(Cell& cell, const Watch& watch) const;
  void measure(Cell& cell) const;
  const Cell& reference(const Cell& cell) const;
  TextCapacityOfSize of_size(size_t size) const;
  fs::path model(size_t size) const { return o_.folder / std::to_string(o_.sizes[size]) / "model"; }
  fs::path folder(const Cell& cell) const {
    return o_.folder / std::to_string(o_.sizes[cell.size]) /
           fmt::format("{}-steps-{}", cell.name, cell.steps);
  }
  int64_t all() const { return std::ssize(text_.train); }

  TextCapacityOptions o_;
  const Watch& watch_;
  TextSequences text_;
  std::vector<int64_t> parameters_;  // by size
  // By size, then amount; of a size the last is that with half the steps, before it the reference.
  std::vector<Cell> cells_;
};

std::vector<double> Study::loads(int64_t parameters) const {
  if (!o_.loads.empty()) return o_.loads;
  std::vector<double> loads;
  for (double load = kFirstLoad;
       sequences_of_load(load, parameters, o_.recipe.length, text_.vocabulary) < all(); load *= 2)
    loads.push_back(load);
  return loads;
}

void Study::add_cells(size_t size) {
  const int64_t parameters = load_model(model(size)).parameters;
  parameters_.push_back(parameters);
  const size_t first = cells_.size();
  for (const double load : loads(parameters)) {
    const int64_t count = sequences_of_load(load, parameters, o_.recipe.length, text_.vocabulary);
    if (count > all())
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: {} sequences to train on, a load of {:g} takes {} of {} "
                              "parameters",
                              o_.text.string(), all(), load, count, parameters),
                  "--loads: without it they end where the text does");
    if (count < all()) cells_.push_back({size, fmt::format("load-{:g}", load), count, o_.steps});
  }
  cells_.push_back({size, "all", all(), o_.steps});
  const auto from_capacity = [&](const Cell& cell) {
    const double load = static_cast<double>(cell.sequences * (o_.recipe.length - 1)) *
                        std::log2(text_.vocabulary) / static_cast<double>(parameters);
    return std::abs(std::log(load / o_.capacity));
  };
  Cell half = *std::min_element(
      cells_.begin() + static_cast<std::ptrdiff_t>(first), cells_.end(),
      [&](const Cell& a, const Cell& b) { return from_capacity(a) < from_capacity(b); });
  half.steps = o_.steps / 2;
  cells_.push_back(std::move(half));
}

void Study::train(Cell& cell, const Watch& watch) const {
  const fs::path result = folder(cell) / "result.json";
  if (fs::exists(result)) {
    cell.run = read_text_capacity_run(result);
    return;
  }
  cell.trained = train_on(token_data({text_.train.begin(), text_.train.begin() + cell.sequences}),
                          training_of(o_.recipe, "sequences of text", model(cell.size),
                                      folder(cell) / "train", cell.sequences, cell.steps),
                          watch);
}

const Cell& Study::reference(const Cell& cell) const {
  return *std::ranges::find_if(cells_, [&](const Cell& other) {
    return other.size == cell.size && other.sequences == all() && other.steps == o_.steps;
  });
}

// Sums over sequences.
struct Measured {
  double nats = 0, reference_nats = 0, bits = 0, extracted = 0;
  std::vector<double> losses;  // nats per token of each
};

Measured measure_all(const std::vector<std::vector<Token>>& sequences, SequenceReader& model,
                     SequenceReader& reference, int64_t most) {
  Measured sum;
  const int64_t count = std::min(std::ssize(sequences), most);
  for (int64_t i = 0; i < count; ++i) {
    const Document document =
        all_but_first(sequences[static_cast<size_t>(i * std::ssize(sequences) / count)]);
    const SequenceReading reading = model.read(document);
    const double known = reference.read(document).loss.nats;
    sum.nats += reading.loss.nats;
    sum.reference_nats += known;
    sum.bits += memorized_bits(known, reading.loss.nats);
    sum.extracted += is_extracted(document.counted, reading.likeliest, 0) ? 1 : 0;
    sum.losses.push_back(reading.loss.nats / static_cast<double>(reading.loss.tokens));
  }
  return sum;
}

void Study::measure(Cell& cell) const {
  if (cell.run.steps > 0) return;  // it was there
  const fs::path reference_model = folder(reference(cell)) / "train" / "model";
  SequenceReader model(cell.trained.output, o_.recipe.length),
      reference(reference_model, o_.recipe.length);
  const std::vector<std::vector<Token>> data(text_.train.begin(),
                                             text_.train.begin() + cell.sequences);
  const Measured members = measure_all(data, model, reference, o_.held_out);
  const Measured others = measure_all(text_.held_out, model, reference, o_.held_out);
  const auto of_members = static_cast<double>(members.losses.size());
  const auto of_others = static_cast<double>(others.losses.size());
  const auto per_sequence = static_cast<double>(o_.recipe.length - 1);
  TextCapacityRun& run = cell.run;
  run.size = o_.sizes[cell.size];
  run.parameters = parameters_[cell.size];
  run.sequences = cell.sequences;
  run.tokens = cell.sequences * (o_.recipe.length - 1);
  run.data_bits = static_cast<double>(run.tokens) * std::log2(text_.vocabulary);
  run.load = run.data_bits / static_cast<double>(run.parameters);
  run.reference_bits =
      members.reference_nats / std::numbers::ln2 / of_members * static_cast<double>(cell.sequences);
  run.train_loss = members.nats / of_members / per_sequence;
  run.test_loss = others.nats / of_others / per_sequence;
  run.memorized_bits = members.bits / of_members;
  run.test_memorized_bits = others.bits / of_others;
  run.extraction_rate = members.extracted / of_members;
  run.test_extraction_rate = others.extracted / of_others;
  run.membership = infer_membership(members.losses, others.losses);
  run.expected_f1 = expected_membership_f1(run.load);
  run.steps = cell.steps;
  run.seconds = cell.trained.seconds;
  write_file(folder(cell) / "result.json", to_json(run).dump(2) + "\n");
}

std::optional<size_t> first_above(const std::vector<TextCapacityRun>& runs, double bits,
                                  double TextCapacityRun::*of) {
  const auto found = std::ranges::find_if(runs, [&](const auto& run) { return run.*of > bits; });
  if (found == runs.end()) return std::nullopt;
  return static_cast<size_t>(found - runs.begin());
}

TextCapacityOfSize Study::of_size(size_t size) const {
  TextCapacityOfSize found{.parameters = parameters_[size], .runs = {}, .half = {}};
  found.capacity_bits = static_cast<double>(found.parameters) * o_.capacity;
  std::vector<double> test_losses, shares;
  for (const Cell& cell : cells_) {
    if (cell.size != size) continue;
    if (cell.steps != o_.steps) {
      found.half = cell.run;
      continue;
    }
    found.runs.push_back(cell.run);
    test_losses.push_back(cell.run.test_loss);
    if (cell.sequences < all())
      shares.push_back(cell.run.memorized_bits * static_cast<double>(cell.sequences) /
                       cell.run.reference_bits);
  }
  found.double_descent = find_double_descent(test_losses);
  found.grokking = find_grokking(shares);
  found.data_pass = first_above(found.runs, found.capacity_bits, &TextCapacityRun::data_bits);
  found.reference_pass =
      first_above(found.runs, found.capacity_bits, &TextCapacityRun::reference_bits);
  const auto most = std::ranges::max_element(found.runs, {}, [](const TextCapacityRun& run) {
    return run.memorized_bits_per_parameter() *
           (1 - run.test_memorized_bits / std::max(run.memorized_bits, 1e-9));
  });
  found.most_memorized = static_cast<size_t>(most - found.runs.begin());
  if (found.half.sequences < all()) {
    const auto whole =
        std::ranges::find(found.runs, found.half.sequences, &TextCapacityRun::sequences);
    found.gain_of_training = gain(whole->memorized_bits, found.half.memorized_bits);
    found.training_plateau = *found.gain_of_training < kPlateauGain;
  }
  return found;
}

TextCapacityStudy Study::run() {
  for (const int64_t size : o_.sizes) capacity_shape(size, text_.vocabulary, o_.layers);
  const FolderLock lock =
      begin_study(o_.folder, to_json(o_, text_), {"sizes", "loads", "capacity"});
  for (size_t size = 0; size < o_.sizes.size(); ++size) {
    make_capacity_model(o_.sizes[size], text_.vocabulary, o_.layers, o_.recipe.seed, model(size));
    add_cells(size);
  }
  std::vector<TrainingCell> training, measuring;
  for (Cell& cell : cells_) {
    const int64_t tokens =
        cell.steps * step_sequences(o_.recipe, cell.sequences) * o_.recipe.length;
    const auto weight = static_cast<double>(o_.sizes[cell.size]);
    training.push_back({tokens, weight, [&](const Watch& w) { train(cell, w); }});
    measuring.push_back({cell.sequences, weight, [&](const Watch&) { measure(cell); }});
  }
  run_cells(training, o_.threads, watch_);
  run_cells(measuring, o_.threads, Watch{{}, watch_.stop});
  TextCapacityStudy study{.options = o_,
                          .vocabulary = text_.vocabulary,
                          .sequences = all(),
                          .duplicates = text_.duplicates,
                          .sizes = {}};
  for (size_t size = 0; size < o_.sizes.size(); ++size) study.sizes.push_back(of_size(size));
  return study;
}

}  // namespace

std::optional<DoubleDescent> find_double_descent(std::span<const double> test_losses) {
  constexpr double kNoticeable = 0.01;
  DoubleDescent best;
  for (size_t i = 1; i + 1 < test_losses.size(); ++i) {
    const double before = std::ranges::min(test_losses.first(i));
    const double after = std::ranges::min(test_losses.subspan(i + 1));
    const DoubleDescent peak{i, test_losses[i] - before, test_losses[i] - after};
    if (std::min(peak.rise, peak.fall) > std::min(best.rise, best.fall)) best = peak;
  }
  if (best.peak == 0 || std::min(best.rise, best.fall) < kNoticeable * test_losses[best.peak])
    return std::nullopt;
  return best;
}

std::optional<size_t> find_grokking(std::span<const double> memorized_bits) {
  constexpr double kMost = 0.95;
  if (memorized_bits.empty()) return std::nullopt;
  const double most = std::ranges::max(memorized_bits);
  size_t last = memorized_bits.size() - 1;
  while (memorized_bits[last] < kMost * most) --last;
  if (last + 1 == memorized_bits.size()) return std::nullopt;
  return last;
}

TextCapacityStudy study_text_capacity(const TextCapacityOptions& options, const Watch& watch) {
  check(options);
  return Study(options, watch).run();
}

}  // namespace lapidary
