#include "bench/kernel_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "base/float16.h"
#include "base/rng.h"
#include "base/statistics.h"
#include "kernels/kv_rows.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

AlignedVector<float> random_floats(int64_t n, uint64_t stream) {
  const CounterRng rng(11, stream);
  AlignedVector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return values;
}

std::vector<float> to_vector(const AlignedVector<float>& values) {
  return {values.begin(), values.end()};
}

std::string count(int64_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

// ---- matrices

struct Format {
  const char* name;
  WeightFormat format;
  DType dtype = DType::kBF16;  // of scales and biases when affine
  int bits = 0, group = 0;     // when affine

  WeightMatrix shape(int64_t rows, int64_t cols) const {
    if (is_blocks(format)) return block_matrix(format, rows, cols, nullptr);
    return {
        .rows = rows, .cols = cols, .format = format, .dtype = dtype, .bits = bits, .group = group};
  }
};
constexpr Format affine(const char* name, int bits) {
  return {name, WeightFormat::kAffine, DType::kBF16, bits, 64};
}
constexpr Format kDense[] = {{"BF16", WeightFormat::kDense},
                             {"F32", WeightFormat::kDense, DType::kF32}};
constexpr Format kAffine[] = {affine("2-bit", 2), affine("3-bit", 3), affine("4-bit", 4),
                              affine("5-bit", 5), affine("6-bit", 6), affine("8-bit", 8)};
constexpr Format kBlocks[] = {{"Q4_0", WeightFormat::kQ4_0},
                              {"Q8_0", WeightFormat::kQ8_0},
                              {"Q4_K", WeightFormat::kQ4_K},
                              {"Q6_K", WeightFormat::kQ6_K}};

// `copies` matrices of one shape with the same random content, to be used in turn: where they are
// more together than the caches hold, each use reads memory, as in a model.
class RandomMatrices {
 public:
  RandomMatrices(const Format& format, int64_t rows, int64_t cols, int64_t copies) {
    const WeightMatrix shape = format.shape(rows, cols);
    const int64_t codes = rows * shape.row_bytes();
    const int64_t scales = shape.affine() ? rows * shape.row_groups() * size_of(shape.dtype) : 0;
    memory_.resize(static_cast<size_t>(copies * shape.bytes()));
    if (shape.quantized()) {
      fill_bits(memory_.data(), codes);
      fill_floats(memory_.data() + codes, 2 * scales, shape.dtype);
    } else {
      fill_floats(memory_.data(), codes, shape.dtype);
    }
    for (int64_t i = 0; i < copies; ++i) {
      std::byte* at = memory_.data() + i * shape.bytes();
      if (i > 0) std::memcpy(at, memory_.data(), static_cast<size_t>(shape.bytes()));
      views_.push_back(shape);
      views_.back().data = at;
      if (!shape.affine()) continue;
      views_.back().scales = at + codes;
      views_.back().biases = at + codes + scales;
    }
  }

  const WeightMatrix& next() { return views_[next_++ % views_.size()]; }

 private:
  // Without bit 6 of a byte, so that no f16 of a block is infinite or no number.
  static void fill_bits(std::byte* to, int64_t bytes) {
    const CounterRng rng(13);
    for (int64_t i = 0; i < bytes; ++i)
      to[i] = static_cast<std::byte>(rng.bits(static_cast<uint64_t>(i)) & 0xbf);
  }
  static void fill_floats(std::byte* to, int64_t bytes, DType type) {
    const CounterRng rng(17);
    for (int64_t i = 0; i < bytes / size_of(type); ++i) {
      const float value = 0.05f * rng.normal(static_cast<uint64_t>(i));
      const uint16_t half = to_bfloat16(value).bits;
      if (type == DType::kF32) std::memcpy(to + 4 * i, &value, 4);
      if (type == DType::kBF16) std::memcpy(to + 2 * i, &half, 2);
    }
  }

  AlignedVector<std::byte> memory_;
  std::vector<WeightMatrix> views_;
  size_t next_ = 0;
};

// Matrices, activations, and room for the product.
struct ProductData {
  RandomMatrices matrices;
  int64_t tokens;
  AlignedVector<float> x, y;

  ProductData(const Format& format, int64_t rows, int64_t cols, int64_t tokens_in, int64_t copies)
      : matrices(format, rows, cols, copies),
        tokens(tokens_in),
        x(random_floats(tokens * cols, 1)),
        y(static_cast<size_t>(tokens * rows)) {}

  void multiply(Executor& ex) {
    const WeightMatrix& w = matrices.next();
    matmul(ex, {x.data(), tokens, w.cols}, w, {y.data(), tokens, w.rows});
  }
};

constexpr int64_t kOddTokens = 9, kOddRows = 37;
int64_t odd_columns(const Format& format) {
  if (is_blocks(format.format)) return 5 * std::max(kQuantUnit, block_format(format.format).cols);
  return format.bits > 0 ? 5 * format.group : 1109;
}

int64_t copies_of(const WeightMatrix& shape) {
  constexpr int64_t kMoreThanCaches = int64_t{128} << 20, kMost = 256;
  return std::min(kMoreThanCaches / shape.bytes() + 1, kMost);
}

std::string product_shape(const Format& format, int64_t rows, int64_t cols, int64_t tokens) {
  return fmt::format("{}, {} x {}, {}", format.name, rows, cols, count(tokens, "token"));
}

KernelCase matmul_case(const Format& format, int64_t rows, int64_t cols, int64_t tokens) {
  const WeightMatrix shape = format.shape(rows, cols);
  return {.op = "matmul",
          .shape = product_shape(format, rows, cols, tokens),
          .work = {.bytes = static_cast<double>(shape.bytes()),
                   .flops = 2.0 * static_cast<double>(rows * cols * tokens)},
          .from_memory = true,
          .sample =
              [=](Executor& ex) {
                ProductData data(format, kOddRows, odd_columns(format), kOddTokens, 1);
                data.multiply(ex);
                return to_vector(data.y);
              },
          .prepare =
              [=] {
                auto data =
                    std::make_shared<ProductData>(format, rows, cols, tokens, copies_of(shape));
                return [=](Executor& ex) { data->multiply(ex); };
              }};
}

// ---- activations of 8 bits

// The same, with the activations rounded by the definition.
struct RoundedData : ProductData {
  AlignedVector<int8_t> codes;
  AlignedVector<float> steps, sums;
  QuantizedRows rounded;

  RoundedData(const Format& format, int64_t rows, int64_t cols, int64_t tokens_in, int64_t copies)
      : ProductData(format, rows, cols, tokens_in, copies),
        rounded{.tokens = tokens,
                .cols = cols,
                .bits = activation_bits(format.shape(rows, cols)),
                .group = format.shape(rows, cols).group} {
    const auto cells = static_cast<size_t>(rounded.blocks() * tokens);
    codes.resize(cells * kQuantBlock);
    steps.resize(cells);
    sums.resize(cells * kQuantGroups);
    rounded.codes = codes.data();
    rounded.steps = steps.data();
    rounded.sums = sums.data();
    supported_kernels().front()->quantize(
        {.x = x.data(), .first_token = 0, .last_token = tokens, .out = &rounded});
  }
  RoundedData(const RoundedData&) = delete;  // `rounded` points into it

  void quantize(Executor& ex) {
    ex.for_each(tokens, rounded.cols, [&](int64_t first, int64_t last, int) {
      ex.kernels().quantize(
          {.x = x.data(), .first_token = first, .last_token = last, .out = &rounded});
    });
  }
  void multiply(Executor& ex) {
    constexpr int64_t kShare = 16;  // rows, as in the model's loop
    const WeightMatrix& w = matrices.next();
    ex.reserve_scratch(quantized_scratch_floats(w.cols));
    ex.for_each((w.rows + kShare - 1) / kShare, kShare * w.cols * tokens,
                [&](int64_t first, int64_t last, int thread) {
                  ex.kernels().quantized_matmul({.x = &rounded,
                                                 .weight = &w,
                                                 .first_row = first * kShare,
                                                 .last_row = std::min(last * kShare, w.rows),
                                                 .y = y.data(),
                                                 .scratch = ex.scratch(thread)});
                });
  }
};

KernelCase quantized_matmul_case(const Format& format, int64_t rows, int64_t cols, int64_t tokens) {
  const WeightMatrix shape = format.shape(rows, cols);
  const double flops = 2.0 * static_cast<double>(rows * cols * tokens);
  return {.op = "quantized_matmul",
          .shape = product_shape(format, rows, cols, tokens),
          .work = {.bytes = static_cast<double>(shape.bytes()), .flops = flops, .rounded = flops},
          .from_memory = true,
          .sample =
              [=](Executor& ex) {
                RoundedData data(format, kOddRows, odd_columns(format), kOddTokens, 1);
                data.multiply(ex);
                return to_vector(data.y);
              },
          .prepare =
              [=] {
                auto data =
                    std::make_shared<RoundedData>(format, rows, cols, tokens, copies_of(shape));
                return [=](Executor& ex) { data->multiply(ex); };
              }};
}

KernelCase quantize_case(const Format& format, int64_t cols, int64_t tokens) {
  const auto values = static_cast<double>(tokens * cols);
  return {.op = "quantize",
          .shape = fmt::format("for {}, {} of {}", format.name, count(tokens, "token"), cols),
          .work = {.bytes = 5 * values, .flops = 4 * values},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                RoundedData data(format, 1, odd_columns(format), kOddTokens, 1);
                std::ranges::fill(data.codes, int8_t{0});
                std::ranges::fill(data.steps, 0.0f);
                std::ranges::fill(data.sums, 0.0f);
                data.quantize(ex);
                std::vector<float> all = to_vector(data.steps);
                all.insert(all.end(), data.codes.begin(), data.codes.end());
                all.insert(all.end(), data.sums.begin(), data.sums.end());
                return all;
              },
          .prepare =
              [=] {
                auto data = std::make_shared<RoundedData>(format, 1, cols, tokens, 1);
                return [=](Executor& ex) { data->quantize(ex); };
              }};
}

KernelCase dequantize_case(const Format& format, int64_t rows, int64_t cols) {
  struct Data {
    RandomMatrices table;
    std::vector<Token> ids;
    AlignedVector<float> out;

    Data(const Format& f, int64_t n, int64_t width)
        : table(f, n, width, 1), out(static_cast<size_t>(n * width)) {
      for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<Token>(n - 1 - i));
    }
    void read(Executor& ex) {
      const WeightMatrix& w = table.next();
      embed(ex, ids, w, 1.0f, {out.data(), w.rows, w.cols});
    }
  };
  const auto values = static_cast<double>(rows * cols);
  return {.op = "dequantize_row",
          .shape = fmt::format("{}, {} rows of {}", format.name, rows, cols),
          .work = {.bytes = static_cast<double>(format.shape(rows, cols).bytes()) + 4 * values,
                   .flops = 2 * values},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                Data data(format, kOddRows, odd_columns(format));
                data.read(ex);
                return to_vector(data.out);
              },
          .prepare =
              [=] {
                auto data = std::make_shared<Data>(format, rows, cols);
                return [=](Executor& ex) { data->read(ex); };
              }};
}

// ---- attention

// Keys and values of one head, and the queries of `rows` rows that see all of them.
struct AttentionData {
  static constexpr int kHeadDim = 256;
  static constexpr int64_t kPartial = attend_partial_floats(kHeadDim);
  KvType type;
  int64_t keys;
  int rows;
  std::vector<std::byte> memory;  // blocks of keys, then values
  std::vector<const std::byte*> blocks;
  AlignedVector<float> q, out, partials;

  AttentionData(KvType type_in, int64_t keys_in, int rows_in)
      : type(type_in), keys(keys_in), rows(rows_in) {
    const int64_t number = (keys + kKvBlock - 1) / kKvBlock, row = kv_row_bytes(type, kHeadDim);
    memory.resize(static_cast<size_t>(number * 2 * kKvBlock * row));
    const AlignedVector<float> values = random_floats(number * 2 * kKvBlock * kHeadDim, 19);
    for (int64_t i = 0; i < number * 2 * kKvBlock; ++i)
      store_kv_row(values.data() + i * kHeadDim, kHeadDim, type, memory.data() + i * row);
    for (int64_t b = 0; b < number; ++b) blocks.push_back(memory.data() + b * 2 * kKvBlock * row);
    q = random_floats(rows * kHeadDim, 3);
    out.resize(q.size());
    partials.resize(static_cast<size_t>(pieces() * rows * kPartial));
  }
  AttentionData(AttentionData&&) = default;  // blocks point into memory that stays where it is
  AttentionData(const AttentionData&) = delete;

  int64_t pieces() const { return (keys + kAttendPiece - 1) / kAttendPiece; }

  // All keys, or those of one piece.
  void attend(Executor& ex, int thread, std::optional<int64_t> piece = {}) {
    const float* from[kAttendRows];
    float* to[kAttendRows];
    int64_t first[kAttendRows] = {}, last[kAttendRows];
    for (int r = 0; r < rows; ++r) {
      from[r] = q.data() + r * kHeadDim;
      to[r] = out.data() + r * kHeadDim;
      last[r] = keys;
    }
    AttendArgs args{.q = from, .out = to, .first = first, .last = last};
    args.rows = rows;
    args.head_dim = kHeadDim;
    args.scale = 1.0f / 16;
    args.kv_type = type;
    args.blocks = blocks.data();
    args.v_offset = kKvBlock * kv_row_bytes(type, kHeadDim);
    args.scratch = ex.scratch(thread);
    if (piece) {
      args.piece = *piece;
      args.partial = partials.data() + *piece * rows * kPartial;
    }
    ex.kernels().attend(args);
  }
  void attend_in_pieces(Executor& ex) {
    const int64_t work = 2 * kAttendPiece * kHeadDim * rows;
    ex.for_each(pieces(), work, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t piece = begin; piece < end; ++piece) attend(ex, thread, piece);
    });
    merge(ex);
  }
  void merge(Executor& ex) {
    for (int r = 0; r < rows; ++r)
      ex.kernels().merge_attention(partials.data() + r * kPartial, pieces(), rows * kPartial,
                                   kHeadDim, out.data() + r * kHeadDim);
  }
};

Work attention_work(KvType type, int64_t keys, int rows, int heads) {
  const auto positions = static_cast<double>(keys * heads);
  return {.bytes = 2 * positions * static_cast<double>(kv_row_bytes(type, AttentionData::kHeadDim)),
          .flops = 4 * positions * AttentionData::kHeadDim * rows};
}
std::string attention_shape(KvType type, int64_t keys, int rows) {
  return fmt::format("{} queries, {} keys, {}", rows, keys, name_of(type));
}

// As prompts do it: every thread has a head, or more, to itself.
KernelCase attend_case(KvType type, int64_t keys, int rows, int threads) {
  return {.op = "attend",
          .shape = attention_shape(type, keys, rows),
          .work = attention_work(type, keys, rows, threads),
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                AttentionData data(type, 3 * kKvBlock + 7, 5);
                ex.reserve_scratch(attend_scratch_floats(AttentionData::kHeadDim));
                data.attend(ex, 0);
                return to_vector(data.out);
              },
          .prepare =
              [=] {
                auto heads = std::make_shared<std::vector<AttentionData>>();
                for (int i = 0; i < threads; ++i) heads->emplace_back(type, keys, rows);
                return [=](Executor& ex) {
                  ex.reserve_scratch(attend_scratch_floats(AttentionData::kHeadDim));
                  ex.pool().parallel_for(threads, [&](int64_t first, int64_t last, int thread) {
                    for (int64_t i = first; i < last; ++i)
                      (*heads)[static_cast<size_t>(i)].attend(ex, thread);
                  });
                };
              }};
}

// As steps do it: the threads share the pieces of one head, which are then merged.
KernelCase attend_in_pieces_case(KvType type, int64_t keys, int rows) {
  return {.op = "attend",
          .shape = attention_shape(type, keys, rows) + ", in pieces",
          .work = attention_work(type, keys, rows, 1),
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                AttentionData data(type, 2 * kAttendPiece + 7, 5);
                ex.reserve_scratch(attend_scratch_floats(AttentionData::kHeadDim));
                for (int64_t piece = 0; piece < data.pieces(); ++piece) data.attend(ex, 0, piece);
                Executor definition(*supported_kernels().front(), 1);
                data.merge(definition);
                return to_vector(data.out);
              },
          .prepare =
              [=] {
                auto data = std::make_shared<AttentionData>(type, keys, rows);
                return [=](Executor& ex) {
                  ex.reserve_scratch(attend_scratch_floats(AttentionData::kHeadDim));
                  data->attend_in_pieces(ex);
                };
              }};
}

KernelCase merge_case(int64_t keys, int rows) {
  // The partials are the definition's.
  const auto data_of = [](int64_t n, int r) {
    auto data = std::make_shared<AttentionData>(KvType::kBF16, n, r);
    Executor definition(*supported_kernels().front(), 1);
    definition.reserve_scratch(attend_scratch_floats(AttentionData::kHeadDim));
    for (int64_t piece = 0; piece < data->pieces(); ++piece) data->attend(definition, 0, piece);
    return data;
  };
  const int64_t pieces = (keys + kAttendPiece - 1) / kAttendPiece;
  const auto values = static_cast<double>(pieces * rows * AttentionData::kPartial);
  return {.op = "merge_attention",
          .shape = fmt::format("{} queries, {} pieces", rows, pieces),
          .work = {.bytes = 4 * values, .flops = 2 * values},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                const auto data = data_of(2 * kAttendPiece + 7, 5);
                data->merge(ex);
                return to_vector(data->out);
              },
          .prepare =
              [=] {
                const auto data = data_of(keys, rows);
                return [=](Executor& ex) { data->merge(ex); };
              }};
}

// ---- value by value

// An operation in place on `rows` x `cols` values, with another operand; per value, it moves
// `operands` f32 and does `flops` operations.
using Pointwise = void (*)(Executor&, Matrix, AlignedVector<float>&);
KernelCase pointwise_case(const char* op, int64_t rows, int64_t cols, double operands, double flops,
                          Pointwise apply) {
  const auto size = static_cast<size_t>(rows * cols);
  const auto n = static_cast<double>(size);
  return {.op = op,
          .shape = fmt::format("{} x {}", rows, cols),
          .work = {.bytes = 4 * operands * n, .flops = flops * n},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                constexpr int64_t kRows = 3, kCols = 1103;
                AlignedVector<float> x = random_floats(kRows * kCols, 5);
                AlignedVector<float> other = random_floats(kRows * kCols, 6);
                apply(ex, {x.data(), kRows, kCols}, other);
                return to_vector(x);
              },
          .prepare =
              [=] {
                // Values that stay what they are, however often the operation is repeated.
                auto x = std::make_shared<AlignedVector<float>>(size, 8.0f);
                auto other = std::make_shared<AlignedVector<float>>(size, 1.0f);
                return [=](Executor& ex) { apply(ex, {x->data(), rows, cols}, *other); };
              }};
}

void add_pointwise(std::vector<KernelCase>& cases) {
  constexpr double kExpFlops = 20;  // of e^x: reducing the argument, and a polynomial
  cases.push_back(pointwise_case("rms_norm", 512, 1152, 2, 4,
                                 [](Executor& ex, Matrix x, AlignedVector<float>& weight) {
                                   const auto cols = static_cast<size_t>(x.cols);
                                   rms_norm(ex, x, std::span(weight).first(cols), 1e-6, x);
                                 }));
  cases.push_back(pointwise_case("gelu_mul", 512, 6912, 3, kExpFlops + 8,
                                 [](Executor& ex, Matrix x, AlignedVector<float>& up) {
                                   gelu_mul(ex, x, {up.data(), x.rows, x.cols});
                                 }));
  cases.push_back(
      pointwise_case("softcap", 1, 262144, 2, kExpFlops + 6,
                     [](Executor& ex, Matrix x, AlignedVector<float>&) { softcap(ex, x, 30); }));
  cases.push_back(pointwise_case("softmax", 1, 262144, 4, kExpFlops + 4,
                                 [](Executor& ex, Matrix x, AlignedVector<float>&) {
                                   for (int64_t t = 0; t < x.rows; ++t)
                                     ex.kernels().softmax(x.row(t), x.cols);
                                 }));
  cases.push_back(pointwise_case("gelu_mul_backward", 1, 6912, 5, kExpFlops + 16,
                                 [](Executor& ex, Matrix x, AlignedVector<float>& up) {
                                   AlignedVector<float> d_up(static_cast<size_t>(x.size()));
                                   ex.kernels().gelu_mul_backward(up.data(), up.data(), x.data,
                                                                  d_up.data(), x.size());
                                   for (int64_t i = 0; i < x.size(); ++i)
                                     x.data[i] += d_up[static_cast<size_t>(i)];
                                 }));
}

// A product of training: operands, packed and multiplied. Those of bf16 are the same numbers, to be
// rounded.
struct GemmData {
  GemmData(int64_t m, int64_t n, int64_t k)
      : a(random_floats(m * k, 7)), b(random_floats(k * n, 8)), c(static_cast<size_t>(m * n)) {}
  void multiply(Executor& ex, int64_t m, int64_t n, int64_t k, Operands operands) {
    ex.operands = operands;
    gemm(ex, Strided(a.data(), m, k, k), Strided(b.data(), k, n, n), {c.data(), n},
         Into::kOverwrite);
    ex.operands = Operands::kFloat;
  }
  AlignedVector<float> a, b, c;
};

KernelCase gemm_case(int64_t rows, int64_t cols, int64_t depth, Operands operands) {
  const bool bf16 = operands == Operands::kBFloat16;
  const auto flops = static_cast<double>(2 * rows * cols * depth);
  const auto floats = static_cast<double>(rows * depth + depth * cols + rows * cols);
  return {.op = bf16 ? "gemm_bf16" : "gemm",
          .shape = fmt::format("{} x {} x {}", rows, depth, cols),
          .work = {.bytes = 4 * floats, .flops = flops, .bf16 = bf16 ? flops : 0},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                GemmData data(37, 53, 301);
                data.multiply(ex, 37, 53, 301, operands);
                return to_vector(data.c);
              },
          .prepare =
              [=] {
                auto data = std::make_shared<GemmData>(rows, cols, depth);
                return [=](Executor& ex) { data->multiply(ex, rows, cols, depth, operands); };
              }};
}

// Rounding and packing alone: the first operand of a product as it lies, or turned over.
KernelCase pack_bf16_case(int64_t rows, int64_t depth, Bf16Operand operand, bool turned) {
  struct Data {
    Data(int64_t m, int64_t k)
        : from(random_floats(m * k, 7)),
          to(static_cast<size_t>((m + kBf16Panel - 1) / kBf16Panel * kBf16Panel * bf16_depth(k))) {}
    void pack(Executor& ex, int64_t m, int64_t k, Bf16Operand operand, bool turned) {
      ex.for_each((m + kBf16Panel - 1) / kBf16Panel, kBf16Panel * k,
                  [&](int64_t first, int64_t last, int) {
                    ex.kernels().pack_bf16({.operand = operand,
                                            .data = from.data(),
                                            .count = m,
                                            .depth = k,
                                            .stride = turned ? 1 : k,
                                            .k_stride = turned ? m : 1,
                                            .first = first,
                                            .last = last,
                                            .out = to.data(),
                                            .panel = kBf16Panel * bf16_depth(k)});
                  });
    }
    AlignedVector<float> from;
    AlignedVector<BFloat16> to;
  };
  const auto values = static_cast<double>(rows * depth);
  return {.op = "pack_bf16",
          .shape = fmt::format("{} x {} as {}{}", rows, depth,
                               operand == Bf16Operand::kRows ? "rows" : "columns",
                               turned ? ", turned over" : ""),
          .work = {.bytes = 6 * values, .flops = values},
          .from_memory = false,
          .sample =
              [=](Executor& ex) {
                Data data(37, 301);
                data.pack(ex, 37, 301, operand, turned);
                std::vector<float> packed;
                for (const BFloat16 value : data.to) packed.push_back(to_float(value));
                return packed;
              },
          .prepare =
              [=] {
                auto data = std::make_shared<Data>(rows, depth);
                return [=](Executor& ex) { data->pack(ex, rows, depth, operand, turned); };
              }};
}

}  // namespace

std::vector<KernelCase> kernel_cases(const Kernels& kernels, int threads) {
  const bool slow = kernels.isa == "ref";
  std::vector<KernelCase> cases;
  const auto rows = [&](int64_t n) { return slow ? 32 : n; };
  // Gemma 3 1B's hidden size, or what is nearest and whole blocks.
  const auto width = [](const Format& format) {
    const int64_t cols = is_blocks(format.format) ? block_format(format.format).cols : 1;
    return 1152 / cols * cols;
  };
  const auto add_products = [&](const Format& format) {
    for (const int64_t tokens : {1, 8, 512}) {
      cases.push_back(matmul_case(format, rows(6912), width(format), tokens));
      cases.push_back(matmul_case(format, rows(1152), 6912, tokens));
    }
    cases.push_back(dequantize_case(format, 512, width(format)));
  };
  for (const Format& format : kDense) add_products(format);
  for (const Format& format : kAffine)
    if (format.bits == 4 || format.bits == 8) add_products(format);
  for (const Format& format : kBlocks) add_products(format);
  const auto add_quantized = [&](const Format& format) {
    cases.push_back(quantize_case(format, width(format), 512));
    for (const int64_t tokens : {1, 4, 64, 512})
      cases.push_back(quantized_matmul_case(format, rows(6912), width(format), tokens));
  };
  for (const Format& format : kAffine) add_quantized(format);
  for (const Format& format : kBlocks) add_quantized(format);
  for (const int64_t keys : {512, 4096}) {
    cases.push_back(attend_case(KvType::kBF16, keys, kAttendRows, threads));
    for (const KvType type : kKvTypes) cases.push_back(attend_in_pieces_case(type, keys, 4));
  }
  cases.push_back(merge_case(4096, 4));
  add_pointwise(cases);
  const bool bf16 = kernels.gemm_bf16 != nullptr;
  for (const Operands operands : {Operands::kFloat, Operands::kBFloat16})
    for (const int64_t tokens : {128, 512}) {
      if (operands == Operands::kBFloat16 && !bf16) continue;
      cases.push_back(gemm_case(tokens, rows(6912), 1152, operands));
      cases.push_back(gemm_case(tokens, rows(1152), 6912, operands));
    }
  for (const Bf16Operand operand : {Bf16Operand::kRows, Bf16Operand::kCols})
    for (const bool turned : {false, true})
      if (bf16) cases.push_back(pack_bf16_case(512, 1152, operand, turned));
  return cases;
}

KernelResult check_kernel(const KernelCase& c, Executor& definition, Executor& table) {
  KernelResult result{
      .isa = std::string(table.kernels().isa), .op = c.op, .shape = c.shape, .work = c.work};
  result.error = relative_error(c.sample(table), c.sample(definition));
  result.correct = result.error <= kKernelErrorBound;  // false of a NaN
  return result;
}

}  // namespace lapidary
