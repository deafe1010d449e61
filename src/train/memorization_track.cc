#include "train/memorization_track.h"

#include <algorithm>

#include "lapidary/memorization.h"

#include "train/batches.h"

namespace lapidary {

namespace {

std::vector<Loss> losses_of(const Dataset& data, const std::vector<int64_t>& sequences,
                            Backprop& backprop, const Watch& watch) {
  std::vector<Loss> losses;
  for (const int64_t sequence : sequences) {
    Batch batch;
    batch.append(data.read(sequence));
    losses.push_back(backprop.evaluate({batch.tokens, batch.targets, batch.lengths}, watch));
  }
  return losses;
}

}  // namespace

MemorizationTrack::Side MemorizationTrack::side(const Dataset* data, int64_t sample,
                                                Backprop& backprop, const Watch& watch) {
  Side side{.data = data, .sequences = {}, .reference = {}};
  if (data == nullptr) return side;
  const int64_t count = std::min(sample, data->size());
  for (int64_t i = 0; i < count; ++i) side.sequences.push_back(i * data->size() / count);
  for (const Loss& loss : losses_of(*data, side.sequences, backprop, watch))
    side.reference.push_back(loss.nats);
  return side;
}

MemorizationTrack::MemorizationTrack(const TrainingData& data, int64_t sample, Backprop& backprop,
                                     const Watch& watch)
    : train_(side(data.train.get(), sample, backprop, watch)),
      valid_(side(data.valid.get(), sample, backprop, watch)) {}

TrackedMemorization MemorizationTrack::measure(Backprop& backprop, const Watch& watch) const {
  std::vector<double> gains[2];  // per token, of what was trained on and of what was not
  double bits[2] = {};
  for (const Side* side : {&train_, &valid_}) {
    if (side->data == nullptr) continue;
    const size_t which = side == &train_ ? 0 : 1;
    const auto losses = losses_of(*side->data, side->sequences, backprop, watch);
    for (size_t i = 0; i < losses.size(); ++i) {
      bits[which] +=
          memorized_bits(side->reference[i], losses[i].nats) / static_cast<double>(losses.size());
      gains[which].push_back((losses[i].nats - side->reference[i]) /
                             static_cast<double>(losses[i].tokens));
    }
  }
  TrackedMemorization found{.bits = bits[0], .valid_bits = {}, .auc = {}};
  if (valid_.data != nullptr) {
    found.valid_bits = bits[1];
    found.auc = infer_membership(gains[0], gains[1]).auc;
  }
  return found;
}

}  // namespace lapidary
