#include <algorithm>
#include <cmath>

#include "lapidary/memorization_study.h"
#include "lapidary/session.h"

#include "base/fail.h"
#include "generate/logit_rows.h"
#include "train/data.h"

namespace lapidary {

namespace {

// What one model makes of a document.
struct Reading {
  double nats = 0;                 // over the tokens that count
  std::vector<uint8_t> likeliest;  // [T]: of those, 1 where the right token is the likeliest one
};

Reading read(const std::shared_ptr<const Engine>& engine, const Document& document,
             const Watch& watch) {
  Session session(engine, std::ssize(document.tokens));
  Reading reading{.nats = 0, .likeliest = std::vector<uint8_t>(document.tokens.size())};
  session.score(
      document.tokens,
      [&](int64_t i, std::span<const float> logits) {
        const auto next = static_cast<size_t>(i + 1);
        if (next == document.tokens.size() || document.counted[next] == 0) return;
        const auto token = static_cast<size_t>(document.tokens[next]);
        reading.nats += log_sum_exp(logits) - logits[token];
        const auto likeliest = std::ranges::max_element(logits) - logits.begin();
        reading.likeliest[next] = static_cast<size_t>(likeliest) == token ? 1 : 0;
      },
      watch);
  if (!std::isfinite(reading.nats)) fail("{}: logits are not finite", engine->folder().string());
  return reading;
}

class Study {
 public:
  Study(const std::shared_ptr<const Engine>& model, const std::shared_ptr<const Engine>& reference,
        const MemorizationOptions& options, const Watch& watch)
      : model_(model), reference_(reference), o_(options), watch_(watch), pool_(model->threads()) {}

  MemorizationStudy run();

 private:
  TrainingData open(const std::filesystem::path& path) {
    return open_data(path, model_->tokenizer(),
                     {.sequence_length = o_.sequence_length,
                      .long_documents = LongDocuments::kTruncate,
                      .documents = {.prompt_loss = o_.prompt_loss}},
                     pool_, Watch{{}, watch_.stop});
  }
  int64_t sampled(const Dataset& data) const { return std::min(o_.sample, data.size()); }
  int64_t longest(const Dataset& data) const;  // of what is sampled, in tokens
  std::vector<SequenceMemory> measure(const Dataset& data);
  SequenceMemory measure(const Document& document);

  const std::shared_ptr<const Engine>&model_, &reference_;
  const MemorizationOptions& o_;
  const Watch& watch_;
  ThreadPool pool_;
  int64_t done_ = 0, total_ = 0;  // sequences
};

SequenceMemory Study::measure(const Document& document) {
  const Watch quiet{{}, watch_.stop};
  const Reading model = read(model_, document, quiet);
  SequenceMemory memory{
      .tokens = std::count(document.counted.begin(), document.counted.end(), uint8_t{1}),
      .reference_nats = read(reference_, document, quiet).nats,
      .model_nats = model.nats};
  memory.bits = memorized_bits(memory.reference_nats, memory.model_nats);
  memory.extracted = is_extracted(document.counted, model.likeliest, o_.prefix);
  return memory;
}

std::vector<SequenceMemory> Study::measure(const Dataset& data) {
  std::vector<SequenceMemory> memories;
  const int64_t count = sampled(data);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sequence = i * data.size() / count;
    memories.push_back(measure(data.read(sequence)));
    memories.back().sequence = sequence;
    watch_.report(++done_, total_);
  }
  return memories;
}

int64_t Study::longest(const Dataset& data) const {
  int64_t tokens = 0;
  for (int64_t i = 0; i < sampled(data); ++i)
    tokens = std::max(tokens, std::ssize(data.read(i * data.size() / sampled(data)).tokens));
  return tokens;
}

double nats_per_token(const SequenceMemory& m) {
  return m.model_nats / static_cast<double>(m.tokens);
}
double gain_per_token(const SequenceMemory& m) {
  return (m.model_nats - m.reference_nats) / static_cast<double>(m.tokens);
}

Membership membership(const MemorizationStudy& study, double (*loss)(const SequenceMemory&)) {
  std::vector<double> members, others;
  for (const SequenceMemory& m : study.members) members.push_back(loss(m));
  for (const SequenceMemory& m : study.others) others.push_back(loss(m));
  return infer_membership(members, others);
}

MemorizationStudy Study::run() {
  if (o_.sample < 1) fail_usage("--sample: {} is not positive", o_.sample);
  if (o_.prefix < 0) fail_usage("--prefix: {} is negative", o_.prefix);
  const int vocabulary = model_->config().vocab_size;
  if (reference_->config().vocab_size != vocabulary)
    fail("{}: a vocabulary of {}, expected the {} of {}", reference_->folder().string(),
         reference_->config().vocab_size, vocabulary, model_->folder().string());
  const TrainingData data = open(o_.data), held_out = open(o_.held_out);
  if (o_.prefix >= std::max(longest(*data.train), longest(*held_out.train)))
    fail_usage("--prefix: {} given, and no sequence has a token after so many", o_.prefix);
  total_ = sampled(*data.train) + sampled(*held_out.train);
  MemorizationStudy study;
  study.members = measure(*data.train);
  study.others = measure(*held_out.train);
  study.parameters = model_->parameters();
  study.data_sequences = data.train->report().sequences;
  study.data_tokens = data.train->report().targets;
  study.by_loss = membership(study, nats_per_token);
  study.by_gain = membership(study, gain_per_token);
  study.data_bits_per_parameter = static_cast<double>(study.data_tokens) * std::log2(vocabulary) /
                                  static_cast<double>(study.parameters);
  study.expected_f1 = expected_membership_f1(study.data_bits_per_parameter);
  return study;
}

}  // namespace

double mean_bits(const std::vector<SequenceMemory>& sequences) {
  double sum = 0;
  for (const SequenceMemory& s : sequences) sum += s.bits;
  return sum / static_cast<double>(sequences.size());
}

double extraction_rate(const std::vector<SequenceMemory>& sequences) {
  const auto extracted = std::ranges::count(sequences, true, &SequenceMemory::extracted);
  return static_cast<double>(extracted) / static_cast<double>(sequences.size());
}

MemorizationStudy study_memorization(const std::shared_ptr<const Engine>& model,
                                     const std::shared_ptr<const Engine>& reference,
                                     const MemorizationOptions& options, const Watch& watch) {
  return Study(model, reference, options, watch).run();
}

}  // namespace lapidary
