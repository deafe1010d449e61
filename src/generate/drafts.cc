#include "generate/drafts.h"

#include <algorithm>
#include <numeric>

namespace lapidary {

std::span<const Token> NgramDrafter::propose(std::span<const Token> timeline, int64_t most) {
  const int64_t length = std::ssize(timeline);
  for (int64_t n = std::min(longest_, length - 1); n > 0; --n) {
    const auto tail = timeline.last(static_cast<size_t>(n));
    const auto earlier = timeline.first(timeline.size() - 1);
    const auto found = std::ranges::find_end(earlier, tail);
    if (found.empty()) continue;
    const auto follows = timeline.subspan(static_cast<size_t>(found.end() - earlier.begin()));
    return follows.first(std::min(follows.size(), static_cast<size_t>(most)));
  }
  return {};
}

ModelDrafter::ModelDrafter(std::shared_ptr<const Engine> engine, int64_t context, int usable_vocab)
    : session_(std::move(engine), context),
      usable_(std::min(usable_vocab, session_.engine().config().vocab_size)) {}

std::span<const Token> ModelDrafter::propose(std::span<const Token> timeline, int64_t most) {
  const SamplerOptions greedy{.temperature = 0};
  proposed_.clear();
  const int rows = session_.engine().config().vocab_size;
  if (std::ranges::any_of(timeline, [&](Token id) { return id >= rows; })) return {};
  session_.sync(timeline);
  while (std::ssize(proposed_) < most) {
    proposed_.push_back(sample(greedy, session_.logits(), session_.tokens(), usable_));
    if (std::ssize(proposed_) < most) session_.append({&proposed_.back(), 1});
  }
  return proposed_;
}

BlockDrafter::BlockDrafter(const Session& session, const SetBlockOptions& options,
                           const SamplerOptions& sampling, int usable_vocab)
    : session_(session),
      sampling_(sampling),
      usable_(usable_vocab),
      masks_(static_cast<size_t>(options.block), mask_token(session.engine(), options)),
      rows_(masks_.size() - 1),
      block_size_(options.block),
      start_(session.length()),
      last_length_(start_) {
  std::iota(rows_.begin(), rows_.end(), 1);
  sampling_.logit_bias.insert_or_assign(masks_.front(), -1e30f);  // it stands for any token
}

std::span<const Token> BlockDrafter::propose(std::span<const Token> timeline, int64_t most) {
  timeline_.assign(timeline.begin(), timeline.end());
  // The block was read after guesses that all hold. After a wrong one what it said is of no use,
  // but the guesses behind the wrong one were made without it.
  if (!block_.empty() && std::ssize(timeline) > start_) {
    first_ = start_ + 1;
    guesses_.swap(block_);
  }
  block_.clear();
  const auto guesses = std::span(guesses_).subspan(
      std::min(guesses_.size(), static_cast<size_t>(std::ssize(timeline) - first_)));
  return guesses.first(std::min(guesses.size(), static_cast<size_t>(most)));
}

void BlockDrafter::join(StepItem& pass, int64_t most) {
  // Where guesses do not hold, as in free text, large blocks cost more than they give: a wrong
  // guess halves them, but for room for twice what held, and right ones double them.
  const int64_t stayed = session_.length() - last_length_, given = start_ - last_length_;
  if (stayed < given) block_size_ = std::max(block_size_ / 2, 2 * stayed);
  if (stayed == given && given > 1) block_size_ *= 2;
  block_size_ = std::min(block_size_, std::ssize(masks_));
  last_length_ = session_.length();
  start_ = last_length_ + std::ssize(pass.tokens);
  const int64_t size = std::min({block_size_, most, session_.context() - start_});
  if (size < 2) return;
  block_.resize(static_cast<size_t>(size - 1));
  pass.block = std::span(masks_).first(block_.size() + 1);
  pass.block_rows = std::span(rows_).first(block_.size());
  pass.on_block = [this](int64_t place, std::span<const float> logits) {
    block_[static_cast<size_t>(place - 1)] =
        predict(sampling_, logits, timeline_, start_ + place, usable_).token;
  };
}

std::unique_ptr<Drafter> make_drafter(const DecodeOptions& options, const Session& session,
                                      const SamplerOptions& sampling, int usable_vocab) {
  switch (options.mode) {
    case DecodeMode::kNgram:
      return std::make_unique<NgramDrafter>(options.ngram_max);
    case DecodeMode::kDraft:
      return std::make_unique<ModelDrafter>(options.draft, session.context(), usable_vocab);
    case DecodeMode::kBlockDraft:
      return std::make_unique<BlockDrafter>(session, options.set_block, sampling, usable_vocab);
    case DecodeMode::kPlain:
    case DecodeMode::kSetBlock:
      break;
  }
  return nullptr;
}

}  // namespace lapidary
