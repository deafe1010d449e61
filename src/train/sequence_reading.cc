#include "train/sequence_reading.h"

#include <span>

#include "train/batches.h"

namespace lapidary {

SequenceReading read_sequence(Backprop& backprop, const Document& document, const Watch& watch) {
  Batch batch;
  batch.append(document);
  // Row t predicts the token after it.
  SequenceReading reading{.loss = {}, .likeliest = std::vector<uint8_t>(batch.tokens.size() + 1)};
  reading.loss = backprop.evaluate({batch.tokens, batch.targets, batch.lengths}, watch,
                                   std::span(reading.likeliest).subspan(1));
  reading.likeliest.pop_back();  // nothing follows the last
  return reading;
}

}  // namespace lapidary
