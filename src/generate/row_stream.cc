#include "generate/row_stream.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "base/cpu_budget.h"
#include "base/fail.h"

namespace lapidary {

namespace {

constexpr int64_t kPieceValues = int64_t{4} << 20;

}  // namespace

RowStream::RowStream(int threads) : pool_(threads > 0 ? threads : cpu_budget().threads()) {}

int64_t RowStream::piece_rows(int64_t cols) {
  return std::max<int64_t>(1, kPieceValues / cols);
}

int64_t RowStream::bytes(int64_t rows, int64_t cols, const RowEncoder& encoder, int threads) {
  int64_t bytes = threads * cols * int64_t{sizeof(float)};
  for (size_t part = 0; part < encoder.parts(); ++part)
    bytes += encoder.row_bytes(part, cols) * (part == 0 ? std::min(rows, piece_rows(cols)) : rows);
  return bytes;
}

void RowStream::write(const RowSource& source, const RowEncoder& encoder, const std::string& what,
                      const Sink& sink, const AfterPiece& after_piece) {
  LAPIDARY_CHECK(source.cols % encoder.block_values == 0, what);
  parts_.resize(encoder.parts());
  for (size_t part = 1; part < encoder.parts(); ++part)
    parts_[part].resize(static_cast<size_t>(source.rows * encoder.row_bytes(part, source.cols)));
  const int64_t step = piece_rows(source.cols);
  for (int64_t first = 0; first < source.rows; first += step) {
    const int64_t rows = std::min(step, source.rows - first);
    parts_[0].resize(static_cast<size_t>(rows * encoder.row_bytes(0, source.cols)));
    if (const int64_t bad = encode_piece(source, encoder, first, rows); bad >= 0)
      fail("{}: row {} has a value that {} cannot hold", what, bad, encoder.name);
    sink(parts_[0]);
    if (after_piece) after_piece(first + rows);
  }
  for (size_t part = 1; part < encoder.parts(); ++part) sink(parts_[part]);
}

// Returns a row with a value that the encoding cannot hold, or -1.
int64_t RowStream::encode_piece(const RowSource& source, const RowEncoder& encoder, int64_t first,
                                int64_t rows) {
  std::atomic<int64_t> bad_row{-1};
  pool_.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
    std::vector<float> values(static_cast<size_t>(source.cols));
    std::array<std::byte*, 3> to = {};
    for (int64_t row = begin; row < end; ++row) {
      source.fill(first + row, values.data());
      if (!encoder.fits(values)) {
        bad_row = first + row;
        continue;
      }
      for (size_t part = 0; part < encoder.parts(); ++part)
        to[part] = parts_[part].data() +
                   (part == 0 ? row : first + row) * encoder.row_bytes(part, source.cols);
      encoder.encode(values, to.data());
    }
  });
  return bad_row;
}

}  // namespace lapidary
