#include "train/data.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "train/shuffle.h"
#include "train/source.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

// Streams of the seed: epochs take 0, 1, 2 ...
constexpr uint64_t kValidStream = uint64_t{1} << 63;

void check(const DataOptions& options) {
  if (options.sequence_length < 2)
    fail_usage("--sequence-length: {} given, expected 2 or more tokens", options.sequence_length);
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1))
    fail_usage("--valid-fraction: {} given, expected 0 or more and less than 1",
               options.valid_fraction);
}

std::unique_ptr<Dataset> dataset_of(const ReadSource& read,
                                    const std::vector<CountedSequence>& sequences,
                                    const std::string& name) {
  DataReport report = read.report;
  std::vector<Sequence> used;
  for (const CountedSequence& s : sequences) {
    if (s.targets == 0) {
      ++report.without_targets;
      continue;
    }
    report.tokens += s.sequence.length;
    report.targets += s.targets;
    used.push_back(s.sequence);
  }
  if (used.empty()) fail("{}: nothing in it that a loss would count", name);
  report.sequences = std::ssize(used);
  return std::make_unique<Dataset>(read.source, std::move(used), report);
}

// Which of `count` documents, or windows of a text, validation takes.
std::vector<bool> chosen_for_validation(int64_t count, bool text, const DataOptions& options) {
  const double wanted = std::round(options.valid_fraction * static_cast<double>(count));
  const auto taken = std::max(int64_t{1}, static_cast<int64_t>(wanted));
  if (taken >= count)
    fail_usage("--valid-fraction: {} of {} {} leaves nothing to train on", options.valid_fraction,
               count, text ? "windows" : "documents");
  std::vector<bool> chosen(static_cast<size_t>(count));
  if (text) {
    std::fill(chosen.end() - taken, chosen.end(), true);
  } else {
    const auto order = shuffled(count, CounterRng(options.seed, kValidStream));
    for (int64_t i = 0; i < taken; ++i)
      chosen[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
  }
  return chosen;
}

// What of two sides is of sequences.
void add_sequences(const DataReport& side, DataReport& report) {
  report.sequences += side.sequences;
  report.tokens += side.tokens;
  report.targets += side.targets;
  report.without_targets += side.without_targets;
}

// And the rest, where they have other documents.
void add_documents(const DataReport& side, DataReport& report) {
  report.documents += side.documents;
  report.longest = std::max(report.longest, side.longest);
  report.truncated += side.truncated;
  report.truncated_away += side.truncated_away;
  report.split += side.split;
}

// One file for both sides.
TrainingData divided(const ReadSource& read, bool text, const DataOptions& options,
                     const std::string& name) {
  TrainingData data;
  data.fingerprint = read.fingerprint;
  if (options.valid_fraction == 0) {
    data.train = dataset_of(read, read.sequences, name);
    data.report = data.train->report();
    return data;
  }
  const std::vector<bool> chosen = chosen_for_validation(
      text ? std::ssize(read.sequences) : read.report.documents, text, options);
  std::vector<CountedSequence> sides[2];
  for (const CountedSequence& s : read.sequences)
    sides[chosen[static_cast<size_t>(s.sequence.document)] ? 1 : 0].push_back(s);
  data.train = dataset_of(read, sides[0], name);
  data.valid = dataset_of(read, sides[1], name);
  data.report = data.train->report();
  add_sequences(data.valid->report(), data.report);
  return data;
}

TrainingData open_folder(const fs::path& folder, const Tokenizer& tokenizer,
                         const DataOptions& options, ThreadPool& pool, const Watch& watch) {
  const bool text = !fs::exists(folder / "train.jsonl");
  const fs::path train = folder / (text ? "train.txt" : "train.jsonl");
  const fs::path valid = folder / (text ? "valid.txt" : "valid.jsonl");
  if (!fs::exists(train)) fail("{}: no train.jsonl or train.txt in this folder", folder.string());
  if (!text && fs::exists(folder / "train.txt"))
    fail("{}: both a train.jsonl and a train.txt in this folder", folder.string());
  const auto reader = text ? read_text : read_jsonl;
  const ReadSource read = reader(train, tokenizer, options, pool, watch);
  if (!fs::exists(valid)) return divided(read, text, options, train.string());
  if (options.valid_fraction > 0)
    fail_usage("--valid-fraction: {} given, but {} is there", options.valid_fraction,
               valid.string());
  const ReadSource other = reader(valid, tokenizer, options, pool, watch);
  TrainingData data;
  data.train = dataset_of(read, read.sequences, train.string());
  data.valid = dataset_of(other, other.sequences, valid.string());
  data.fingerprint = mix64(read.fingerprint) ^ other.fingerprint;
  data.report = data.train->report();
  add_sequences(data.valid->report(), data.report);
  add_documents(data.valid->report(), data.report);
  return data;
}

}  // namespace

Dataset::Dataset(std::shared_ptr<const DocumentSource> source, std::vector<Sequence> sequences,
                 const DataReport& report)
    : source_(std::move(source)), sequences_(std::move(sequences)), report_(report) {}

Document Dataset::read(int64_t i) const {
  const Sequence& sequence = sequences_[static_cast<size_t>(i)];
  Document whole = source_->read(sequence.document);
  if (sequence.first == 0 && sequence.length == std::ssize(whole.tokens)) return whole;
  Document part;
  const int64_t front = sequence.first > 0 ? 1 : 0;
  if (front > 0) part.append({whole.tokens.front()}, false);
  for (int64_t k = sequence.first; k < sequence.first + sequence.length - front; ++k)
    part.append({whole.tokens[static_cast<size_t>(k)]}, whole.counted[static_cast<size_t>(k)] != 0);
  return part;
}

TrainingData open_data(const fs::path& path, const Tokenizer& tokenizer, const DataOptions& options,
                       ThreadPool& pool, const Watch& watch) {
  check(options);
  if (fs::is_directory(path)) return open_folder(path, tokenizer, options, pool, watch);
  const fs::path extension = path.extension();
  if (extension == ".json")
    throw Error(ErrorKind::kInput, fmt::format("{}: one JSON document", path.string()),
                "training data is a file NAME.jsonl with a record on each line");
  const bool text = extension != ".jsonl";
  return divided((text ? read_text : read_jsonl)(path, tokenizer, options, pool, watch), text,
                 options, path.string());
}

}  // namespace lapidary
