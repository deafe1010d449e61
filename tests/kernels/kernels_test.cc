// Every vector table against the definition, within derived bounds; the vector tables against each
// other, and a batch against its rows, bit for bit.
#include "kernels/kernels.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "base/rng.h"
#include "kernels/bounds.h"
#include "kernels/kv_rows.h"
#include "kernels/ref/ref.h"
#if defined(__x86_64__)
#include "kernels/tile_model.h"
#endif

namespace lapidary {
namespace {

// What this machine can run, and the model of the tile kernels.
std::vector<const Kernels*> tables_under_test() {
  std::vector<const Kernels*> list(supported_kernels().begin(), supported_kernels().end());
#if defined(__x86_64__)
  if (list.size() > 1) list.push_back(&tile_model_kernels());
#endif
  return list;
}

std::vector<float> random_floats(int64_t n, uint64_t stream, float scale = 1) {
  const CounterRng rng(7, stream);
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * rng.normal(i);
  return values;
}

std::vector<std::byte> stored(const std::vector<float>& values, DType type) {
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
    view = {.rows = rows, .cols = cols, .dtype = dtype, .bits = bits, .group = group};
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

std::vector<TestMatrix> all_formats(int64_t rows) {
  std::vector<TestMatrix> list;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols : {1, 15, 16, 33, 250, 1100}) list.emplace_back(rows, cols, dtype);
    for (int bits : {2, 3, 4, 5, 6, 8})
      for (int group : {32, 64, 128}) list.emplace_back(rows, 5 * group, dtype, bits, group);
  }
  list.emplace_back(rows, 1152, DType::kBF16, 4, 64);  // more than one block of columns
  return list;
}

std::string describe(const WeightMatrix& w) {
  return std::string(name_of(w.dtype)) + " bits " + std::to_string(w.bits) + " group " +
         std::to_string(w.group) + " cols " + std::to_string(w.cols);
}

std::vector<float> product(const Kernels& kernels, const WeightMatrix& w, const float* x,
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

TEST(Kernels, RefAndEveryTableOfThisMachineAreListedSlowestFirst) {
  ASSERT_GE(supported_kernels().size(), 1u);
  EXPECT_EQ(supported_kernels().front()->isa, "ref");
}

TEST(Kernels, MatmulIsWithinItsRoundingBoundOfTheDefinition) {
  constexpr int64_t kRows = 21;
  for (const TestMatrix& m : all_formats(kRows)) {
    const WeightMatrix& w = m.view;
    constexpr int64_t kTokens = 9;
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    const std::vector<float> expected = product(ref::kernels(), w, x.data(), kTokens, kRows);
    for (const Kernels* table : supported_kernels()) {
      const std::vector<float> got = product(*table, w, x.data(), kTokens, kRows);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t n = 0; n < kRows; ++n) {
          double magnitude = 0;
          for (int64_t k = 0; k < w.cols; ++k)
            magnitude +=
                std::abs(double{x[static_cast<size_t>(t * w.cols + k)]} * ref::weight_at(w, n, k));
          const auto i = static_cast<size_t>(t * kRows + n);
          ASSERT_TRUE(within(got[i], expected[i], dot_bound(w.cols) * magnitude))
              << table->isa << " " << describe(w) << " token " << t << " row " << n;
        }
    }
  }
}

TEST(Kernels, MatmulGivesARowTheSameBitsInEveryBatchSplitAndInstructionSet) {
  constexpr int64_t kRows = 21;
  for (const TestMatrix& m : all_formats(kRows)) {
    const WeightMatrix& w = m.view;
    constexpr int64_t kTokens = 55;  // more than one group
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    std::vector<float> alone;  // by the first vector table, token by token
    for (const Kernels* table : supported_kernels()) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int64_t t = 0; t < kTokens; ++t) {
          const auto y = product(*table, w, x.data() + t * w.cols, 1, kRows);
          alone.insert(alone.end(), y.begin(), y.end());
        }
      for (int64_t tokens : {1, 2, 3, 4, 6, 7, 17, 55})
        for (int64_t split : {1, 5, 21}) {
          const auto y = product(*table, w, x.data(), tokens, split);
          ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
              << table->isa << " " << describe(w) << " tokens " << tokens << " split " << split;
        }
    }
  }
}

// Matrices whose products may use rounded activations, with whole and broken blocks of columns.
std::vector<TestMatrix> quantized_formats(int64_t rows) {
  std::vector<TestMatrix> list;
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128})
      for (int64_t cols : {64, 192, 256, 640})
        if (cols % group == 0) list.emplace_back(rows, cols, DType::kBF16, bits, group);
  list.emplace_back(rows, 1152, DType::kF16, 4, 64);
  list.emplace_back(rows, 640, DType::kF32, 4, 64);
  list.emplace_back(rows, 1088, DType::kF16, 5, 32);
  return list;
}

struct Rounded {
  std::vector<int8_t> codes;
  std::vector<float> steps, sums;
  QuantizedRows view;

  Rounded(const Kernels& kernels, const WeightMatrix& w, const float* x, int64_t tokens) {
    view = {.tokens = tokens, .cols = w.cols, .bits = w.bits, .group = w.group};
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

std::vector<float> quantized_product(const Kernels& kernels, const WeightMatrix& w,
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

TEST(Kernels, ActivationsAreRoundedAlikeOnEveryInstructionSet) {
  for (const TestMatrix& m : quantized_formats(1)) {
    const WeightMatrix& w = m.view;
    std::vector<float> x = random_floats(3 * w.cols, 2);
    std::fill(x.begin(), x.begin() + 64, 0.0f);
    x[static_cast<size_t>(w.cols) + 5] = 300;
    const Rounded expected(ref::kernels(), w, x.data(), 3);
    for (int64_t t = 0; t < 3; ++t)
      for (int64_t k = 0; k < w.cols; ++k) {
        const int64_t cell = k / kQuantBlock * 3 + t;
        const int64_t unit = k % kQuantBlock / kQuantUnit * kQuantUnit;
        const double step = expected.steps[static_cast<size_t>(cell)];
        const double back =
            step * expected.codes[static_cast<size_t>(
                       cell * kQuantBlock + unit + unit_position(w.bits, w.group, k % kQuantUnit))];
        ASSERT_TRUE(within(back, x[static_cast<size_t>(t * w.cols + k)], step * 0.50001))
            << describe(w) << " token " << t << " column " << k;
      }
    for (const Kernels* table : supported_kernels()) {
      const Rounded got(*table, w, x.data(), 3);
      ASSERT_EQ(got.codes, expected.codes) << table->isa << " " << describe(w);
      ASSERT_EQ(got.steps, expected.steps) << table->isa << " " << describe(w);
      ASSERT_EQ(got.sums, expected.sums) << table->isa << " " << describe(w);
    }
  }
}

TEST(Kernels, QuantizedMatmulIsWithinItsRoundingBoundOfTheDefinition) {
  constexpr int64_t kRows = 77, kTokens = 14;
  for (const TestMatrix& m : quantized_formats(kRows)) {
    const WeightMatrix& w = m.view;
    std::vector<float> x = random_floats(kTokens * w.cols, 2);
    const Rounded rounded(ref::kernels(), w, x.data(), kTokens);
    const auto expected = quantized_product(ref::kernels(), w, rounded.view, kRows);
    for (const Kernels* table : tables_under_test()) {
      const auto got = quantized_product(*table, w, rounded.view, kRows);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t n = 0; n < kRows; ++n) {
          double magnitude = 0;  // of the terms scale * dot and bias * sum, over all groups
          for (int64_t k = 0; k < w.cols; ++k) {
            const int64_t g = n * w.row_groups() + k / w.group;
            const double code = ref::code_at(w.data + n * w.row_bytes(), w.bits, k);
            magnitude += std::abs(double{x[static_cast<size_t>(t * w.cols + k)]}) * 1.01 *
                         (std::abs(float_at(w.scales, w.dtype, g)) * code +
                          std::abs(float_at(w.biases, w.dtype, g)));
          }
          const double blocks = static_cast<double>(rounded.view.blocks());
          const double rounding_of_codes = blocks * 0.01 * magnitude;  // |code| may be up by a half
          const auto i = static_cast<size_t>(t * kRows + n);
          ASSERT_TRUE(
              within(got[i], expected[i],
                     chain_bound(2 * kQuantGroups + blocks) * (magnitude + rounding_of_codes)))
              << table->isa << " " << describe(w) << " token " << t << " row " << n;
        }
    }
  }
}

TEST(Kernels, QuantizedMatmulGivesARowTheSameBitsInEveryBatchSplitAndInstructionSet) {
  constexpr int64_t kRows = 77, kTokens = 29;
  for (const TestMatrix& m : quantized_formats(kRows)) {
    const WeightMatrix& w = m.view;
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    std::vector<float> alone;  // by the first vector table, token by token
    for (const Kernels* table : tables_under_test()) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int64_t t = 0; t < kTokens; ++t) {
          const Rounded one(*table, w, x.data() + t * w.cols, 1);
          const auto y = quantized_product(*table, w, one.view, kRows);
          alone.insert(alone.end(), y.begin(), y.end());
        }
      for (int64_t tokens : {1, 2, 3, 4, 5, 13, 29}) {
        const Rounded rounded(*table, w, x.data(), tokens);
        for (int64_t split : {7, 32, 77}) {
          const auto y = quantized_product(*table, w, rounded.view, split);
          ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
              << table->isa << " " << describe(w) << " tokens " << tokens << " split " << split;
        }
      }
    }
  }
}

TEST(Kernels, DequantizeRowEqualsTheDefinition) {
  for (const TestMatrix& m : all_formats(3)) {
    const WeightMatrix& w = m.view;
    for (const Kernels* table : supported_kernels()) {
      std::vector<float> out(static_cast<size_t>(w.cols), NAN);
      table->dequantize_row(w, 2, out.data());
      for (int64_t k = 0; k < w.cols; ++k)
        ASSERT_EQ(out[static_cast<size_t>(k)], ref::weight_at(w, 2, k))
            << table->isa << " " << describe(w);
    }
  }
}

TEST(Kernels, RmsNorm) {
  for (int64_t n : {1, 16, 31, 640, 1152}) {
    const auto x = random_floats(n, 1, 3), weight = random_floats(n, 2);
    std::vector<float> expected(x.size()), got(x.size());
    ref::kernels().rms_norm(x.data(), weight.data(), 1e-6f, n, expected.data());
    for (const Kernels* table : supported_kernels()) {
      table->rms_norm(x.data(), weight.data(), 1e-6f, n, got.data());
      for (size_t i = 0; i < x.size(); ++i)  // the root halves the sum's error; then 5 roundings
        ASSERT_TRUE(within(got[i], expected[i],
                           std::abs(expected[i]) * (dot_bound(n) / 2 + chain_bound(5))))
            << table->isa << " n " << n;
    }
  }
}

TEST(Kernels, GeluMul) {
  std::vector<float> x;
  for (float v = -12; v <= 12; v += 0.0371f) x.push_back(v);
  x.insert(x.end(), {0.0f, -0.0f, 1e-30f, -60.0f, 60.0f, 1e6f, -1e6f});
  const auto up = random_floats(static_cast<int64_t>(x.size()), 3);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> expected = x;
  ref::kernels().gelu_mul(expected.data(), up.data(), n);
  for (const Kernels* table : supported_kernels()) {
    std::vector<float> got = x;
    table->gelu_mul(got.data(), up.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      // e^-2u: the relative error of the argument times its size, 4 for exp, and 6 roundings.
      const double u = 0.79788456 * (x[i] + 0.044715 * std::pow(double{x[i]}, 3));
      const double bound = (4 * std::min(std::abs(2 * u), 90.0) + 10) * kEps;
      // The definition's 1 + tanh u cancels where it nears 0: off by a unit of double at 1.
      const double floor = 0x1p-52 * std::abs(double{x[i]} * up[i]);
      ASSERT_TRUE(within(got[i], expected[i], std::abs(expected[i]) * bound + floor))
          << table->isa << " x " << x[i];
    }
  }
}

TEST(Kernels, Softcap) {
  std::vector<float> x;
  for (float v = -400; v <= 400; v += 0.73f) x.push_back(v);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> expected = x;
  ref::kernels().softcap(expected.data(), n, 30);
  for (const Kernels* table : supported_kernels()) {
    std::vector<float> got = x;
    table->softcap(got.data(), n, 30);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(within(got[i], expected[i], 30 * 0x1p-22)) << table->isa << " x " << x[i];
  }
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

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  for (int dim : {16, 48, 256})
    for (KvType type : kKvTypes)
      for (float cap : {0.0f, 5.0f})
        for (int64_t length : {1, 63, 64, 65, 300, 600}) cases.emplace_back(dim, type, cap, length);
  return cases;
}

TEST(Kernels, AttendIsWithinItsRoundingBoundOfTheDefinition) {
  for (const AttentionCase& c : attention_cases()) {
    const auto expected = c.run(ref::kernels(), 0, kAttendRows);
    for (const Kernels* table : supported_kernels()) {
      const auto got = c.run(*table, 0, kAttendRows);
      const auto pieces = c.run_in_pieces(*table, 0, kAttendRows);
      for (size_t i = 0; i < got.size(); ++i) {
        // |q| and |k| entries stay below 7 and 3.5: a score's error is at most dot_bound times
        // their products, plus the cap's; weights err by e^error twice (numerator, denominator),
        // plus exp and the sums; values stay below 3.5.
        const double score =
            dot_bound(c.head_dim) * 7 * 3.5 * c.head_dim * 0.17 + (c.softcap > 0 ? 5 * 0x1p-22 : 0);
        const double bound = 3.5 * (2 * score + chain_bound(20 + double(c.positions) / 16 + 70));
        ASSERT_TRUE(within(got[i], expected[i], bound))
            << table->isa << " dim " << c.head_dim << " length " << c.positions;
        ASSERT_TRUE(within(pieces[i], expected[i], bound))
            << table->isa << " dim " << c.head_dim << " length " << c.positions << " in pieces";
      }
    }
  }
}

TEST(Kernels, AttendGivesARowTheSameBitsAloneAndTogetherOnEveryInstructionSet) {
  for (const AttentionCase& c : attention_cases()) {
    std::vector<float> alone;
    for (const Kernels* table : supported_kernels()) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int r = 0; r < kAttendRows; ++r) {
          const auto row = c.run(*table, r, 1);
          alone.insert(alone.end(), row.begin(), row.end());
        }
      for (int rows : {1, 2, 3, 4, 7, 16})
        for (int from = 0; from + rows <= kAttendRows; ++from) {
          for (const auto& got : {c.run(*table, from, rows), c.run_in_pieces(*table, from, rows)})
            ASSERT_EQ(std::memcmp(got.data(), alone.data() + from * c.head_dim,
                                  got.size() * sizeof(float)),
                      0)
                << table->isa << " dim " << c.head_dim << " length " << c.positions << " rows "
                << rows;
        }
    }
  }
}

}  // namespace
}  // namespace lapidary
