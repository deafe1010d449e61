#include "train/memorization_track.h"

#include <algorithm>

#include "lapidary/memorization.h"

#include "train/sequence_reading.h"

namespace lapidary {

MemorizationTrack::Side MemorizationTrack::side(const Dataset* data, int64_t sample,
                                                Backprop& backprop, const Watch& watch) {
  Side side{.data = data, .sequences = {}, .reference = {}};
  if (data == nullptr) return side;
  const int64_t count = std::min(sample, data->size());
  for (int64_t i = 0; i < count; ++i) {
    side.sequences.push_back(i * data->size() / count);
    const Document document = data->read(side.sequences.back());
    side.reference.push_back(read_sequence(backprop, document, watch).loss.nats);
  }
  return side;
}

MemorizationTrack::MemorizationTrack(const TrainingData& data, int64_t sample, Backprop& backprop,
                                     const Watch& watch)
    : train_(side(data.train.get(), sample, backprop, watch)),
      valid_(side(data.valid.get(), sample, backprop, watch)) {}

TrackedMemorization MemorizationTrack::measure(Backprop& backprop, const Watch& watch) const {
  std::vector<double> gains[2];  // per token, of what was trained on and of what was not
  double bits[2] = {}, extracted[2] = {};
  for (const Side* side : {&train_, &valid_}) {
    if (side->data == nullptr) continue;
    const size_t which = side == &train_ ? 0 : 1;
    const auto count = static_cast<double>(side->sequences.size());
    for (size_t i = 0; i < side->sequences.size(); ++i) {
      const Document document = side->data->read(side->sequences[i]);
      const SequenceReading reading = read_sequence(backprop, document, watch);
      bits[which] += memorized_bits(side->reference[i], reading.loss.nats) / count;
      extracted[which] += is_extracted(document.counted, reading.likeliest, 0) ? 1 : 0;
      gains[which].push_back((reading.loss.nats - side->reference[i]) /
                             static_cast<double>(reading.loss.tokens));
    }
    extracted[which] /= count;
  }
  TrackedMemorization found{.bits = bits[0],
                            .valid_bits = {},
                            .extraction_rate = extracted[0],
                            .valid_extraction_rate = {},
                            .auc = {}};
  if (valid_.data != nullptr) {
    found.valid_bits = bits[1];
    found.valid_extraction_rate = extracted[1];
    found.auc = infer_membership(gains[0], gains[1]).auc;
  }
  return found;
}

}  // namespace lapidary
