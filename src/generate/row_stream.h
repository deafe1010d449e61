// Matrices on their way into a file: rows are made, encoded and handed on a few at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quant/row_encoder.h"

namespace lapidary {

// A matrix as a function: fill(row, values) makes one row, [cols]. Called from several threads.
struct RowSource {
  int64_t rows = 0;
  int64_t cols = 0;
  std::function<void(int64_t row, float* values)> fill;
};

class RowStream {
 public:
  // Where the encoded bytes go: each part of the encoding as a whole, one after another.
  using Sink = std::function<void(std::span<const std::byte>)>;
  // Called after each piece with the rows that are done; may throw to stop.
  using AfterPiece = std::function<void(int64_t rows)>;

  explicit RowStream(int threads);  // 0: one per core this process may use

  // The blocks must divide the width. `what` names the tensor in messages. The bytes do not depend
  // on the threads. Throws Error{kInput} for a value that the encoding cannot hold.
  void write(const RowSource& source, const RowEncoder& encoder, const std::string& what,
             const Sink& sink, const AfterPiece& after_piece = {});

  ThreadPool& pool() { return pool_; }

  // Rows between two writes, for a matrix of this width.
  static int64_t piece_rows(int64_t cols);
  // What write() holds while it runs.
  static int64_t bytes(int64_t rows, int64_t cols, const RowEncoder& encoder, int threads);

 private:
  int64_t encode_piece(const RowSource& source, const RowEncoder& encoder, int64_t first,
                       int64_t rows);

  ThreadPool pool_;
  // The first part holds a piece; the others are held whole, as they come after it in the file.
  std::vector<std::vector<std::byte>> parts_;
};

}  // namespace lapidary
