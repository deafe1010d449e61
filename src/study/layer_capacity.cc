// Adapters on one layer each, and what they come to hold.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "lapidary/capacity_study.h"
#include "lapidary/engine.h"
#include "lapidary/layer_capacity_study.h"
#include "lapidary/memorization.h"

#include "base/fail.h"
#include "base/text_hash.h"
#include "base/thread_pool.h"
#include "io/output_file.h"
#include "study/layer_capacity_file.h"
#include "study/membership_split.h"
#include "study/training_cells.h"
#include "train/token_source.h"
#include "train/trainer.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kControlStream = uint64_t{1} << 32;

void check(const LayerCapacityOptions& o, int layers) {
  if (o.sequences < 1) fail_usage("--sequences: {} given, expected 1 or more", o.sequences);
  if (o.rank < 1) fail_usage("--rank: {} given, expected 1 or more", o.rank);
  if (o.steps < 1) fail_usage("--steps: {} given, expected 1 or more", o.steps);
  check_recipe(o.recipe, 2);
  for (const int layer : o.layers)
    if (layer < 0 || layer >= layers)
      fail_usage("--layers: {} given, the model has 0 to {}", layer, layers - 1);
}

using Sequences = std::vector<std::vector<Token>>;

class Study {
 public:
  // Runs remember their model's path: it is the same from wherever a study is taken up.
  Study(const LayerCapacityOptions& options, const Watch& watch) : o_(options), watch_(watch) {
    o_.folder = fs::absolute(o_.folder);
    o_.model = fs::absolute(o_.model);
    const Model model = load_model(o_.model);
    vocabulary_ = model.config.vocab_size;
    check(o_, model.config.num_hidden_layers);
    layers_ = o_.layers;
    if (layers_.empty())
      for (int i = 0; i < model.config.num_hidden_layers; ++i) layers_.push_back(i);
    std::ranges::sort(layers_);
    layers_.erase(std::ranges::unique(layers_).begin(), layers_.end());
  }

  LayerCapacityStudy run();

 private:
  void choose_data();
  void read_data();
  std::vector<double> known_before(const Sequences& sequences) const;
  double memorized(SequenceReader& reader, const Sequences& sequences,
                   const std::vector<double>& before, double* nats) const;
  LayerCapacityRun run(int layer, const Watch& watch) const;
  fs::path folder(int layer) const {
    const std::string name = layer == LayerCapacityRun::kAllLayers ? "all" : std::to_string(layer);
    return o_.folder / ("layer-" + name);
  }

  LayerCapacityOptions o_;
  const Watch& watch_;
  int vocabulary_ = 0;
  std::vector<int> layers_;
  Sequences data_, control_;                          // learnt, and not
  std::vector<double> data_before_, control_before_;  // nats of each that there are to know
};

void Study::read_data() {
  const Tokenizer tokenizer = load_tokenizer(o_.model);
  ThreadPool pool(1);
  const TrainingData file =
      open_data(o_.data, tokenizer,
                {.sequence_length = o_.recipe.length, .long_documents = LongDocuments::kSplit},
                pool, Watch{{}, watch_.stop});
  std::vector<int64_t> documents;
  for (int64_t i = 0; i < file.train->size(); ++i) documents.push_back(file.train->document(i));
  const MembershipSplit split = split_members(documents, o_.sequences);
  if (std::min(std::ssize(split.learnt), std::ssize(split.other)) < o_.sequences)
    fail(
        "{}: {} sequences of at most {} tokens to learn, and {} of other documents that are not "
        "learnt, expected {} of either",
        o_.data.string(), split.learnt.size(), o_.recipe.length, split.other.size(), o_.sequences);
  for (const int64_t i : split.learnt) data_.push_back(file.train->read(i).tokens);
  for (const int64_t i : split.other) control_.push_back(file.train->read(i).tokens);
}

void Study::choose_data() {
  if (!o_.data.empty()) return read_data();
  data_ = random_sequences(o_.sequences, o_.recipe.length, vocabulary_, o_.recipe.seed, 0);
  control_ =
      random_sequences(o_.sequences, o_.recipe.length, vocabulary_, o_.recipe.seed, kControlStream);
}

// Of each sequence: the entropy of what was drawn, or what the base does not know.
std::vector<double> Study::known_before(const Sequences& sequences) const {
  std::vector<double> nats;
  if (o_.data.empty()) {
    for (const auto& tokens : sequences)
      nats.push_back(static_cast<double>(std::ssize(tokens) - 1) * std::log(vocabulary_));
    return nats;
  }
  SequenceReader base(o_.model, o_.recipe.length);
  for (const auto& tokens : sequences) nats.push_back(base.read(tokens).loss.nats);
  return nats;
}

// Bits of the sequences; `nats` becomes the sum of their losses.
double Study::memorized(SequenceReader& reader, const Sequences& sequences,
                        const std::vector<double>& before, double* nats) const {
  double bits = 0;
  *nats = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const double now = reader.read(sequences[i]).loss.nats;
    bits += memorized_bits(before[i], now);
    *nats += now;
  }
  return bits;
}

LayerCapacityRun Study::run(int layer, const Watch& watch) const {
  const fs::path result = folder(layer) / "result.json";
  if (fs::exists(result)) return read_layer_capacity_run(result);
  TrainOptions options =
      training_of(o_.recipe, o_.data.empty() ? "random sequences" : "sequences", o_.model,
                  folder(layer) / "train", std::ssize(data_), o_.steps);
  options.method = TrainMethod::kLora;
  options.rank = o_.rank;
  options.alpha = 2 * static_cast<double>(o_.rank);
  if (layer != LayerCapacityRun::kAllLayers)
    options.targets = {"layers." + std::to_string(layer) + ".*"};
  const TrainResult trained = train_on(token_data(data_), options, watch);
  LayerCapacityRun run{.layer = layer,
                       .parameters = trained.parameters,
                       .steps = trained.steps,
                       .seconds = trained.seconds};
  SequenceReader reader(o_.model, o_.recipe.length, trained.output);
  double nats = 0, tokens = 0;
  for (size_t i = 0; i < data_.size(); ++i) {
    run.data_bits += data_before_[i] / std::numbers::ln2;
    tokens += static_cast<double>(std::ssize(data_[i]) - 1);
  }
  run.control_bits = memorized(reader, control_, control_before_, &nats);
  run.memorized_bits = memorized(reader, data_, data_before_, &nats);
  run.loss = nats / tokens;
  write_file(result, to_json(run).dump(2) + "\n");
  return run;
}

LayerCapacityStudy Study::run() {
  choose_data();
  OrderedJson begun = to_json(o_);
  uint64_t fingerprint = 0;
  for (const auto& tokens : data_) fingerprint = hash_tokens(fingerprint, tokens);
  begun["fingerprint"] = fingerprint;
  const FolderLock lock = begin_study(o_.folder, begun, {"layers"});
  data_before_ = known_before(data_);
  control_before_ = known_before(control_);
  LayerCapacityStudy study{.options = o_, .vocabulary = vocabulary_, .runs = {}};
  for (const auto& tokens : data_) study.tokens += std::ssize(tokens) - 1;
  std::vector<int> layers = layers_;
  layers.push_back(LayerCapacityRun::kAllLayers);
  study.runs.resize(layers.size());
  std::vector<TrainingCell> cells;
  for (size_t i = 0; i < layers.size(); ++i)
    cells.push_back(
        {.tokens = o_.steps * step_sequences(o_.recipe, std::ssize(data_)) * o_.recipe.length,
         .run = [this, &run = study.runs[i], layer = layers[i]](const Watch& w) {
           run = this->run(layer, w);
         }});
  run_cells(cells, o_.threads, watch_);
  return study;
}

}  // namespace

LayerCapacityStudy study_layer_capacity(const LayerCapacityOptions& options, const Watch& watch) {
  return Study(options, watch).run();
}

}  // namespace lapidary
