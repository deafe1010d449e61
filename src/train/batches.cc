#include "train/batches.h"

#include <algorithm>
#include <numeric>

#include "base/fail.h"
#include "train/shuffle.h"

namespace lapidary {

namespace {

void check(const BatchOptions& o, const Dataset& data) {
  if (o.rows < 1) fail_usage("batch-size: {} given, expected 1 or more", o.rows);
  if (o.ranks < 1 || o.rank < 0 || o.rank >= o.ranks)
    fail_usage("rank {} of {} cannot be", o.rank, o.ranks);
  for (int64_t i = 0; i < data.size(); ++i)
    LAPIDARY_CHECK(data.length(i) <= o.sequence_length, "a row holds every sequence");
}

int64_t count_of(const std::vector<Token>& targets) {
  return std::ssize(targets) - std::count(targets.begin(), targets.end(), kNoTarget);
}

}  // namespace

int64_t Batch::target_count() const {
  return count_of(targets);
}

int64_t Batch::masked_count() const {
  return count_of(masked);
}

int64_t Batch::token_count() const {
  return std::ssize(tokens) / (blocks.empty() ? 1 : 2);
}

void Batch::append(const Document& document) {
  const size_t n = document.tokens.size();
  tokens.insert(tokens.end(), document.tokens.begin(), document.tokens.end());
  for (size_t i = 1; i < n; ++i)
    targets.push_back(document.counted[i] != 0 ? document.tokens[i] : kNoTarget);
  targets.push_back(kNoTarget);
  lengths.push_back(static_cast<int64_t>(n));
}

Json to_json(const DataPosition& position) {
  return {{"epoch", position.epoch}, {"row", position.row}};
}

DataPosition data_position(const JsonObject& object) {
  const DataPosition position{object.integer("epoch"), object.integer("row")};
  if (position.epoch < 0) object.fail_field("epoch", "is negative");
  if (position.row < 0) object.fail_field("row", "is negative");
  return position;
}

BatchStream::BatchStream(const Dataset& data, const BatchOptions& options, DataPosition start)
    : data_(data), options_(options), position_(start) {
  check(options_, data_);
  lay_out_epoch();
  if (position_.row > rows_in_epoch())
    fail("the data has {} rows in epoch {}, training had come to row {}: it was other data",
         rows_in_epoch(), position_.epoch, position_.row);
}

void BatchStream::lay_out_epoch() {
  if (options_.shuffle) {
    order_ =
        shuffled(data_.size(), CounterRng(options_.seed, static_cast<uint64_t>(position_.epoch)));
  } else {
    order_.resize(static_cast<size_t>(data_.size()));
    std::iota(order_.begin(), order_.end(), int64_t{0});
  }
  row_begins_.clear();
  int64_t room = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    const int64_t length = data_.length(order_[i]);
    if (row_begins_.empty() || !options_.packing || length > room) {
      row_begins_.push_back(static_cast<int64_t>(i));
      room = options_.sequence_length;
    }
    room -= length;
  }
  row_begins_.push_back(std::ssize(order_));
}

bool BatchStream::done() const {
  return !options_.repeat && position_.row == rows_in_epoch();
}

Batch BatchStream::next() {
  Batch batch;
  for (int64_t i = 0; i < options_.rows * options_.ranks && !done(); ++i) {
    if (position_.row == rows_in_epoch()) {
      position_ = {position_.epoch + 1, 0};
      lay_out_epoch();
    }
    const auto row = static_cast<size_t>(position_.row++);
    if (i % options_.ranks != options_.rank) continue;
    for (int64_t k = row_begins_[row]; k < row_begins_[row + 1]; ++k) {
      const int64_t sequence = order_[static_cast<size_t>(k)];
      batch.append(data_.read(sequence));
      batch.numbers.push_back(static_cast<uint64_t>(position_.epoch * data_.size() + sequence));
    }
  }
  return batch;
}

}  // namespace lapidary
