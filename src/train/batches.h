// Rows of documents, in the order of training.
#pragma once

#include <cstdint>
#include <vector>

#include "lapidary/token.h"

#include "base/json.h"
#include "gemma/backprop.h"
#include "train/data.h"

namespace lapidary {

// Documents one after another, none of which sees another: attention and positions begin anew with
// each. The loss is the mean over all targets of the batch, each with the same weight.
struct Batch {
  std::vector<Token> tokens;
  std::vector<Token> targets;  // [tokens]: the next one of the same document; kNoTarget where that
                               // is not counted, or there is none
  std::vector<int64_t> lengths;  // of the documents, in order; their sum is the number of tokens
  // Of each document: its sequence's number, counted on through the epochs. None is given twice.
  std::vector<uint64_t> numbers = {};
  // Once noisy copies are there (set_blocks.h): as of Documents.
  std::vector<int64_t> blocks = {};
  std::vector<Token> masked = {};

  int64_t target_count() const;
  int64_t masked_count() const;
  int64_t token_count() const;  // of the documents, without copies
  void append(const Document& document);
  Documents documents() const { return {tokens, targets, lengths, blocks, masked}; }
};

struct BatchOptions {
  int64_t rows = 1;               // of a batch, on each rank
  int64_t sequence_length = 512;  // what a row may hold: at least the longest of the data
  bool packing = true;            // several documents in a row, as many as it has room for
  bool shuffle = true;            // by the seed, anew in each epoch
  bool repeat = true;  // epochs without end; else one epoch, whose last batch may be short
  uint64_t seed = 0;
  int64_t rank = 0;   // of the ranks that share the rows, this one takes the row `rank` of each
  int64_t ranks = 1;  // `ranks`
};

// The row, of all ranks' together, that comes next.
struct DataPosition {
  int64_t epoch = 0;
  int64_t row = 0;  // within the epoch

  friend bool operator==(const DataPosition&, const DataPosition&) = default;
};
Json to_json(const DataPosition& position);
// Throws Error{kInput} naming the field.
DataPosition data_position(const JsonObject& object);

// Batches are a pure function of data, options and position. Every sequence comes once in an epoch;
// a batch at the end of one takes its other rows from the next. Packing puts sequences into rows in
// the epoch's order, a new row whenever the next does not fit.
class BatchStream {
 public:
  // The data must outlive it. Throws Error{kUsage} for options out of range, Error{kInput} for a
  // position past the end of its epoch, which other data had.
  BatchStream(const Dataset& data, const BatchOptions& options, DataPosition start = {});

  // Reads the rows from disk. Without `repeat` empty at the end, and may be empty on some ranks
  // before. Throws as Dataset::read.
  Batch next();
  bool done() const;  // only without `repeat`
  const DataPosition& position() const { return position_; }
  int64_t rows_in_epoch() const { return std::ssize(row_begins_) - 1; }

 private:
  void lay_out_epoch();

  const Dataset& data_;
  BatchOptions options_;
  DataPosition position_;
  std::vector<int64_t> order_;       // of the sequences in this epoch
  std::vector<int64_t> row_begins_;  // [rows + 1], into order_
};

}  // namespace lapidary
