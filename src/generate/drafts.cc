#include "generate/drafts.h"

#include <algorithm>

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

std::unique_ptr<Drafter> make_drafter(const DecodeOptions& options, int64_t context,
                                      int usable_vocab) {
  if (options.mode == DecodeMode::kNgram) return std::make_unique<NgramDrafter>(options.ngram_max);
  if (options.mode == DecodeMode::kDraft)
    return std::make_unique<ModelDrafter>(options.draft, context, usable_vocab);
  return nullptr;
}

}  // namespace lapidary
