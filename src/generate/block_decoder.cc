// Set Block Decoding: which places of a block are decided after a pass, and what the next one
// reads.
//
// The first place of a block needs no mask to be predicted: the pass that reads what is before it
// says what comes next, as in ordinary decoding. So a block of one is ordinary decoding.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lapidary/decoding.h"

#include "base/fail.h"

namespace lapidary {

namespace {

// Ascending: the surest first.
double doubt(const Prediction& p, RevealOrder order) {
  switch (order) {
    case RevealOrder::kEntropy:
      return p.entropy;
    case RevealOrder::kConfidence:
      return -p.confidence;
    case RevealOrder::kMargin:
      return -p.margin;
  }
  return 0;
}

// How many of the places, in this order, have entropies whose sum without the largest is at most
// gamma: that sum bounds how far apart the places decided together may be from each other.
size_t within_bound(std::span<const int64_t> places, std::span<const Prediction> predictions,
                    double gamma) {
  double others = 0, largest = 0;
  size_t count = 0;
  for (const int64_t place : places) {
    const double entropy = predictions[static_cast<size_t>(place)].entropy;
    others += std::min(entropy, largest);
    largest = std::max(entropy, largest);
    if (count > 0 && others > gamma) break;
    ++count;
  }
  return count;
}

}  // namespace

BlockDecoder::BlockDecoder(Session& session, const SetBlockOptions& options,
                           const SamplerOptions& sampling, int usable_vocab)
    : session_(session),
      options_(options),
      sampling_(sampling),
      usable_(usable_vocab),
      mask_(mask_token(session.engine(), options)),
      timeline_(session.tokens().begin(), session.tokens().end()) {
  sampling_.logit_bias.insert_or_assign(mask_, -1e30f);  // it stands for any token, and is none
}

int64_t BlockDecoder::known() const {
  return masked_.empty() ? std::ssize(tokens_) : masked_.front();
}

void BlockDecoder::begin(int64_t size) {
  LAPIDARY_CHECK(done() && size > 0, "a block follows one that is done");
  first_pass_ = true;
  pending_ = tokens_;
  start_ = session_.length() + std::ssize(pending_);
  const auto length = static_cast<size_t>(std::min(size, options_.block));
  tokens_.assign(length, mask_);
  prediction_.assign(length, {});
  masked_.resize(length);
  std::iota(masked_.begin(), masked_.end(), 0);
  // Where the session goes on from its prompt, the first place is predicted already.
  if (pending_.empty()) prediction_[0] = predicted(0, session_.logits());
}

StepItem BlockDecoder::next_pass() {
  rows_.assign(masked_.begin() + (first_pass_ ? 1 : 0), masked_.end());
  StepItem item{.session = &session_, .tokens = pending_};
  item.block = tokens_;
  item.block_rows = rows_;
  item.on_block = [this](int64_t place, std::span<const float> logits) {
    prediction_[static_cast<size_t>(place)] = predicted(place, logits);
  };
  return item;
}

Prediction BlockDecoder::predicted(int64_t place, std::span<const float> logits) const {
  return predict(sampling_, logits, timeline_, start_ + place, usable_);
}

std::span<const Reveal> BlockDecoder::reveal() {
  ++passes_;
  if (!pending_.empty()) prediction_[0] = predicted(0, session_.logits());
  pending_.clear();
  first_pass_ = false;
  std::vector<int64_t> order = masked_;
  std::ranges::stable_sort(order, {}, [&](int64_t place) {
    return doubt(prediction_[static_cast<size_t>(place)], options_.order);
  });
  order.resize(within_bound(order, prediction_, options_.gamma));
  fresh_.clear();
  for (const int64_t place : order) {
    const auto i = static_cast<size_t>(place);
    tokens_[i] = prediction_[i].token;
    fresh_.push_back({start_ + place, prediction_[i].token, prediction_[i].entropy, passes_});
    std::erase(masked_, place);
  }
  timeline_.resize(static_cast<size_t>(start_));
  for (const Token token : tokens_)
    if (token != mask_) timeline_.push_back(token);
  return fresh_;
}

}  // namespace lapidary
