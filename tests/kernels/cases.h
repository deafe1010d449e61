// Inputs for the kernels, and calls with them. The inputs take no function of the C library, so
// they are the same bits everywhere.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/float16.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "kernels/kv_rows.h"
#if defined(__x86_64__)
#include "kernels/avx512_emulated.h"
#endif

namespace lapidary {

// What this machine can run, and what is emulated on it.
inline std::vector<const Kernels*> tables_under_test() {
  std::vector<const Kernels*> list;
  for (const Kernels* table : supported_kernels()) list.push_back(table);
#if defined(__x86_64__)
  if (list.size() > 1)
    for (const Kernels* table : emulated_kernels()) list.push_back(table);
#endif
  return list;
}

// Of these, one for each `function` that a table has: AMX's has most of them from AVX-512's.
template <class Function>
std::vector<const Kernels*> tables_under_test(Function Kernels::*function) {
  std::vector<const Kernels*> list;
  for (const Kernels* table : tables_under_test())
    if (table->*function != nullptr &&
        std::none_of(list.begin(), list.end(), [&](const Kernels* earlier) {
          return earlier->*function == table->*function;
        }))
      list.push_back(table);
  return list;
}

inline std::vector<float> random_floats(int64_t n, uint64_t stream, float scale = 1) {
  const CounterRng rng(7, stream);
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * rng.normal(i);
  return values;
}

inline std::vector<std::byte> stored(const std::vector<float>& values, DType type) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(size_of(type)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == DType::kF32) std::memcpy(&bytes[4 * i], &values[i], 4);
    const uint16_t half =
        type == DType::kF16 ? to_float16(values[i]).bits : to_bfloat16(values[i]).bits;
    if (type != DType::kF32) std::memcpy(&bytes[2 * i], &half, 2);
  }
  return bytes;
}

// A matrix of random content that ends exactly where its memory ends.
struct TestMatrix {
  std::vector<std::byte> data, scales, biases;
  WeightMatrix view;

  TestMatrix(int64_t rows, int64_t cols, DType dtype, int bits = 0, int group = 0) {
    view = {.rows = rows,
            .cols = cols,
            .format = bits == 0 ? WeightFormat::kDense : WeightFormat::kAffine,
            .dtype = dtype,
            .bits = bits,
            .group = group};
    if (bits == 0) {
      data = stored(random_floats(rows * cols, 1), dtype);
    } else {
      const CounterRng rng(3, static_cast<uint64_t>(bits));
      for (int64_t i = 0; i < rows * view.row_bytes(); ++i)
        data.push_back(static_cast<std::byte>(rng.bits(static_cast<uint64_t>(i)) & 0xff));
      scales = stored(random_floats(rows * view.row_groups(), 4, 0.1f), dtype);
      biases = stored(random_floats(rows * view.row_groups(), 5), dtype);
    }
    view.data = data.data();
    view.scales = scales.data();
    view.biases = biases.data();
  }
};

// Random codes, and everything that is f16 in a block a number of a likely size.
inline TestMatrix block_test_matrix(const BlockFormat& format, int64_t rows, int64_t cols) {
  TestMatrix m(rows, 0, DType::kF16);
  m.view = block_matrix(format.format, rows, cols, nullptr);
  const CounterRng rng(3, static_cast<uint64_t>(format.format));
  for (int64_t i = 0; i < rows * m.view.row_bytes(); ++i)
    m.data.push_back(static_cast<std::byte>(rng.bits(static_cast<uint64_t>(i)) & 0xff));
  const bool q6 = format.format == WeightFormat::kQ6_K;
  for (int64_t i = 0; i < std::ssize(m.data); i += format.bytes)
    for (int64_t half : {0, 2}) {
      const bool stored_half = half == 0 || (!q6 && format.name != "Q4_0" &&
                                             format.name != "Q5_0" && format.name != "Q8_0");
      const uint16_t bits = to_float16(0.05f * rng.normal(static_cast<uint64_t>(i + half))).bits;
      if (stored_half) std::memcpy(&m.data[static_cast<size_t>(i + (q6 ? 208 : half))], &bits, 2);
    }
  m.view.data = m.data.data();
  return m;
}

inline std::vector<TestMatrix> all_formats(int64_t rows) {
  std::vector<TestMatrix> list;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols : {1, 15, 16, 33, 250, 1100}) list.emplace_back(rows, cols, dtype);
    for (int bits : {2, 3, 4, 5, 6, 8})
      for (int group : {32, 64, 128}) list.emplace_back(rows, 5 * group, dtype, bits, group);
  }
  list.emplace_back(rows, 1152, DType::kBF16, 4, 64);  // more than one block of columns
  for (const BlockFormat& format : kBlockFormats)
    for (int blocks : {1, 5}) list.push_back(block_test_matrix(format, rows, blocks * format.cols));
  return list;
}

inline std::vector<float> product(const Kernels& kernels, const WeightMatrix& w, const float* x,
                                  int64_t tokens, int64_t split) {
  std::vector<float> y(static_cast<size_t>(tokens * w.rows), NAN);
  std::vector<float> scratch(static_cast<size_t>(matmul_scratch_floats(w.cols)));
  MatmulArgs args{.x = x, .tokens = tokens, .weight = &w, .y = y.data(), .scratch = scratch.data()};
  for (int64_t row = 0; row < w.rows; row += split) {
    args.first_row = row;
    args.last_row = std::min(row + split, w.rows);
    kernels.matmul(args);
  }
  return y;
}

// Matrices whose products may use rounded activations, with whole and broken blocks of columns.
inline std::vector<TestMatrix> quantized_formats(int64_t rows) {
  std::vector<TestMatrix> list;
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128})
      for (int64_t cols : {64, 192, 256, 640})
        if (cols % group == 0) list.emplace_back(rows, cols, DType::kBF16, bits, group);
  for (int64_t cols : {256, 448, 1152}) list.emplace_back(rows, cols, DType::kF16, 4, 64);
  list.emplace_back(rows, 640, DType::kF32, 4, 64);
  list.emplace_back(rows, 1088, DType::kF16, 5, 32);
  for (const BlockFormat& format : kBlockFormats)
    for (int64_t cols : {64, 192, 256, 768})
      if (cols % format.cols == 0) list.push_back(block_test_matrix(format, rows, cols));
  return list;
}

struct Rounded {
  std::vector<int8_t> codes;
  std::vector<float> steps, sums;
  QuantizedRows view;

  Rounded(const Kernels& kernels, const WeightMatrix& w, const float* x, int64_t tokens) {
    view = {.tokens = tokens, .cols = w.cols, .bits = activation_bits(w), .group = w.group};
    const auto cells = static_cast<size_t>(view.blocks() * tokens);
    codes.assign(cells * kQuantBlock, 0);
    steps.assign(cells, 0);
    sums.assign(cells * kQuantGroups, 0);
    view.codes = codes.data();
    view.steps = steps.data();
    view.sums = sums.data();
    const int64_t half = tokens / 2;
    kernels.quantize({.x = x, .first_token = 0, .last_token = half, .out = &view});
    kernels.quantize({.x = x, .first_token = half, .last_token = tokens, .out = &view});
  }
};

inline std::vector<float> quantized_product(const Kernels& kernels, const WeightMatrix& w,
                                            const QuantizedRows& x, int64_t split) {
  std::vector<float> y(static_cast<size_t>(x.tokens * w.rows), NAN);
  std::vector<float> scratch(static_cast<size_t>(quantized_scratch_floats(w.cols)), NAN);
  for (int64_t row = 0; row < w.rows; row += split)
    kernels.quantized_matmul({.x = &x,
                              .weight = &w,
                              .first_row = row,
                              .last_row = std::min(row + split, w.rows),
                              .y = y.data(),
                              .scratch = scratch.data()});
  return y;
}

// Keys and values of one head in blocks, and queries that see parts of them.
struct AttentionCase {
  int head_dim;
  KvType type;
  float softcap;
  int64_t positions;
  std::vector<std::byte> k, v;
  std::vector<std::vector<std::byte>> blocks;  // keys, then values
  std::vector<const std::byte*> block_data;
  std::vector<float> q;
  std::vector<int64_t> first, last;

  AttentionCase(int dim, KvType kv_type, float cap, int64_t length)
      : head_dim(dim), type(kv_type), softcap(cap), positions(length) {
    const int64_t count = (length + kKvBlock - 1) / kKvBlock;
    k = kv_rows(random_floats(count * kKvBlock * dim, 1));
    v = kv_rows(random_floats(count * kKvBlock * dim, 2));
    // What lies past the end must not matter, whatever it is.
    for (auto i = static_cast<size_t>(length * kv_row_bytes(type, dim)); i < k.size(); ++i)
      k[i] = v[i] = std::byte{0xff};
    const int64_t half = block_half();
    for (int64_t b = 0; b < count; ++b) {
      std::vector<std::byte> block(k.begin() + b * half, k.begin() + (b + 1) * half);
      block.insert(block.end(), v.begin() + b * half, v.begin() + (b + 1) * half);
      blocks.push_back(std::move(block));
    }
    for (const auto& block : blocks) block_data.push_back(block.data());
    q = random_floats(kAttendRows * dim, 3, 2);
    for (int r = 0; r < kAttendRows; ++r) {
      last.push_back(std::max<int64_t>(1, length - r * 5));
      first.push_back(std::max<int64_t>(0, last.back() - 40 - (r < 8 ? 13 : 60) * r));
    }
  }

  std::vector<std::byte> kv_rows(const std::vector<float>& values) const {
    const int64_t row_bytes = kv_row_bytes(type, head_dim);
    const int64_t rows = std::ssize(values) / head_dim;
    std::vector<std::byte> out(static_cast<size_t>(rows * row_bytes));
    for (int64_t i = 0; i < rows; ++i)
      store_kv_row(values.data() + i * head_dim, head_dim, type, out.data() + i * row_bytes);
    return out;
  }

  int64_t block_half() const { return kKvBlock * kv_row_bytes(type, head_dim); }

  // Piece by piece, as several threads do it, and merged.
  std::vector<float> run_in_pieces(const Kernels& kernels, int from, int rows) const {
    const int64_t floats = attend_partial_floats(head_dim);
    const int64_t pieces = (positions + kAttendPiece - 1) / kAttendPiece;
    std::vector<float> partials(static_cast<size_t>(pieces * rows * floats), NAN);
    for (int64_t piece = 0; piece < pieces; ++piece)
      run(kernels, from, rows, partials.data() + piece * rows * floats, piece);
    std::vector<float> out(static_cast<size_t>(rows * head_dim), NAN);
    for (int r = 0; r < rows; ++r)
      kernels.merge_attention(partials.data() + r * floats, pieces, rows * floats, head_dim,
                              out.data() + r * head_dim);
    return out;
  }

  std::vector<float> run(const Kernels& kernels, int from, int rows, float* partial = nullptr,
                         int64_t piece = 0) const {
    std::vector<float> out(static_cast<size_t>(rows * head_dim), NAN);
    std::vector<float> scratch(static_cast<size_t>(attend_scratch_floats(head_dim)), NAN);
    std::vector<const float*> q_rows;
    std::vector<float*> out_rows;
    for (int r = 0; r < rows; ++r) {
      q_rows.push_back(q.data() + (from + r) * head_dim);
      out_rows.push_back(out.data() + r * head_dim);
    }
    kernels.attend({.q = q_rows.data(),
                    .out = out_rows.data(),
                    .first = &first[static_cast<size_t>(from)],
                    .last = &last[static_cast<size_t>(from)],
                    .rows = rows,
                    .head_dim = head_dim,
                    .scale = 0.17f,
                    .softcap = softcap,
                    .kv_type = type,
                    .blocks = block_data.data(),
                    .k_offset = 0,
                    .v_offset = block_half(),
                    .first_block = 0,
                    .scratch = scratch.data(),
                    .partial = partial,
                    .piece = piece});
    return out;
  }
};

inline std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  for (int dim : {16, 48, 256})
    for (KvType type : kKvTypes)
      for (float cap : {0.0f, 5.0f})
        for (int64_t length : {1, 63, 64, 65, 300, 600}) cases.emplace_back(dim, type, cap, length);
  return cases;
}

// c (+)= a bᵀ of operands that the table rounds, a [rows, depth] and b [cols, depth].
inline void bf16_product(const Kernels& kernels, const std::vector<float>& a,
                         const std::vector<float>& b, int64_t rows, int64_t cols, int64_t depth,
                         std::vector<float>& c, int64_t stride, bool add) {
  const auto pack = [&](Bf16Operand operand, const std::vector<float>& values, int64_t n) {
    const int64_t panels = (n + kBf16Panel - 1) / kBf16Panel;
    std::vector<BFloat16> out(static_cast<size_t>(panels * kBf16Panel * bf16_depth(depth)));
    kernels.pack_bf16({.operand = operand,
                       .data = values.data(),
                       .count = n,
                       .depth = depth,
                       .stride = depth,
                       .k_stride = 1,
                       .first = 0,
                       .last = panels,
                       .out = out.data(),
                       .panel = kBf16Panel * bf16_depth(depth)});
    return out;
  };
  const auto packed_a = pack(Bf16Operand::kRows, a, rows);
  const auto packed_b = pack(Bf16Operand::kCols, b, cols);
  kernels.gemm_bf16({.a = packed_a.data(),
                     .b = packed_b.data(),
                     .rows = rows,
                     .cols = cols,
                     .depth = depth,
                     .c = c.data(),
                     .stride = stride,
                     .add = add});
}

}  // namespace lapidary
