#include "train/token_source.h"

#include <algorithm>
#include <utility>

#include "lapidary/error.h"

#include "base/rng.h"
#include "base/text_hash.h"

namespace lapidary {

namespace {

class TokenSource : public DocumentSource {
 public:
  explicit TokenSource(std::vector<std::vector<Token>> sequences)
      : sequences_(std::move(sequences)) {}

  Document read(int64_t number) const override {
    return all_but_first(sequences_[static_cast<size_t>(number)]);
  }

 private:
  std::vector<std::vector<Token>> sequences_;
};

}  // namespace

Document all_but_first(std::vector<Token> tokens) {
  Document document{.tokens = std::move(tokens), .counted = {}};
  document.counted.assign(document.tokens.size(), 1);
  document.counted.front() = 0;
  return document;
}

TrainingData token_data(std::vector<std::vector<Token>> sequences) {
  LAPIDARY_CHECK(!sequences.empty(), "sequences to train on");
  DataReport report{.documents = std::ssize(sequences), .sequences = std::ssize(sequences)};
  std::vector<Sequence> parts;
  TrainingData data;
  for (const std::vector<Token>& tokens : sequences) {
    LAPIDARY_CHECK(tokens.size() >= 2, "a sequence in which something counts");
    parts.push_back({std::ssize(parts), 0, std::ssize(tokens)});
    report.tokens += std::ssize(tokens);
    report.targets += std::ssize(tokens) - 1;
    report.longest = std::max(report.longest, std::ssize(tokens));
    data.fingerprint = hash_tokens(mix64(data.fingerprint ^ tokens.size()), tokens);
  }
  data.train = std::make_unique<Dataset>(std::make_shared<TokenSource>(std::move(sequences)),
                                         std::move(parts), report);
  return data;
}

}  // namespace lapidary
