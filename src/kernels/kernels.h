// The arithmetic of the model on raw memory: one table of functions per instruction set.
//
// Letters for shapes, here and everywhere: T tokens (rows of activations), K inputs and N outputs
// of a matrix, H query heads, D hidden size, L layers, V vocabulary.
//
// Every table computes the same things. `ref` is the definition: plain loops, sums in double. The
// vector tables share one arithmetic, written once over a vector of 16 floats (simd/): the order of
// every sum is fixed by the shapes alone, so their results are the same bits on every instruction
// set, for any number of threads, and a row of a batch is computed as if it were alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lapidary/kv_type.h"

#include "base/dtype.h"
#include "base/float16.h"

namespace lapidary {

// How the weights of a matrix are stored. All but dense ones are codes: whole numbers of a few
// bits, with a scale and a bias for each group of so many along a row, weight = scale * code +
// bias.
//   dense   floats
//   affine  MLX: packed codes, scales and biases in three arrays
//   Q...    ggml: a row is blocks, each of which holds its codes and what scales and biases are
//           made of (blocks.h)
enum class WeightFormat : uint8_t {
  kDense,
  kAffine,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

// The sizes of a format of blocks.
struct BlockFormat {
  WeightFormat format;
  std::string_view name;  // "Q4_0"
  int64_t cols;           // of a block
  int64_t bytes;          // of a block
  int bits;               // of a code
  int group;              // codes that share a scale and a bias
};
constexpr BlockFormat kBlockFormats[] = {
    {WeightFormat::kQ4_0, "Q4_0", 32, 18, 4, 32},   {WeightFormat::kQ4_1, "Q4_1", 32, 20, 4, 32},
    {WeightFormat::kQ5_0, "Q5_0", 32, 22, 5, 32},   {WeightFormat::kQ5_1, "Q5_1", 32, 24, 5, 32},
    {WeightFormat::kQ8_0, "Q8_0", 32, 34, 8, 32},   {WeightFormat::kQ4_K, "Q4_K", 256, 144, 4, 32},
    {WeightFormat::kQ5_K, "Q5_K", 256, 176, 5, 32}, {WeightFormat::kQ6_K, "Q6_K", 256, 210, 6, 16},
};
constexpr bool is_blocks(WeightFormat format) {
  return format >= WeightFormat::kQ4_0;
}
constexpr const BlockFormat& block_format(WeightFormat format) {
  return kBlockFormats[static_cast<int>(format) - static_cast<int>(WeightFormat::kQ4_0)];
}

// A [rows, cols] matrix of weights in the form it has in the file, at any address, aligned or not;
// does not own the memory.
struct WeightMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kF32;        // of `data` when dense, of scales and biases when affine
  const std::byte* data = nullptr;  // rows of row_bytes()
  int bits = 0;                     // of a code; 0 when dense. Affine: 2, 3, 4, 5, 6 or 8
  int group = 0;                    // codes that share a scale; divides cols. Affine: 32, 64 or 128
  // Affine alone, whose codes are packed least significant bit first into a stream of bytes.
  const std::byte* scales = nullptr;  // [rows, cols / group]
  const std::byte* biases = nullptr;  // [rows, cols / group]

  bool affine() const { return format == WeightFormat::kAffine; }
  bool blocks() const { return is_blocks(format); }
  bool quantized() const { return format != WeightFormat::kDense; }
  // Inlined, so that none is left behind that was compiled for one instruction set.
  [[gnu::always_inline]] int64_t row_bytes() const {
    if (blocks()) return cols / block_format(format).cols * block_format(format).bytes;
    return affine() ? cols * bits / 8 : cols * size_of(dtype);
  }
  int64_t row_groups() const { return cols / group; }
  // All that is read to use the matrix once.
  int64_t bytes() const {
    return rows * (row_bytes() + (affine() ? 2 * row_groups() * size_of(dtype) : 0));
  }
};
// A matrix of f32 that lies in memory.
inline WeightMatrix dense_matrix(const float* data, int64_t rows, int64_t cols) {
  return {.rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(data)};
}
// A matrix of blocks; `cols` is whole blocks.
constexpr WeightMatrix block_matrix(WeightFormat format, int64_t rows, int64_t cols,
                                    const std::byte* data) {
  const BlockFormat& b = block_format(format);
  return {.rows = rows,
          .cols = cols,
          .format = format,
          .dtype = DType::kF16,
          .data = data,
          .bits = b.bits,
          .group = b.group};
}
// "BF16", "affine 4-bit, groups of 64" or "Q4_K".
std::string format_name(const WeightMatrix& weight);

// y[t, n] = sum over k of x[t, k] * w[n, k], for n in [first_row, last_row).
struct MatmulArgs {
  const float* x = nullptr;  // [T, K]
  int64_t tokens = 0;
  const WeightMatrix* weight = nullptr;  // [N, K]
  int64_t first_row = 0;
  int64_t last_row = 0;
  float* y = nullptr;        // [T, N]; only the columns [first_row, last_row) are written
  float* scratch = nullptr;  // matmul_scratch_floats(K), not shared between threads
};
int64_t matmul_scratch_floats(int64_t cols);

// Rows of activations rounded to 8 bits, for products with quantised weights: within a block of
// kQuantBlock columns x = step * code, step = largest |x| / 127. A product then is
//
//     y = sum over blocks of step * sum over groups of (scale * dot + bias * sum)
//
// with `dot` the sum of products of weight codes and activation codes over a group, and `sum` that
// of the activation codes alone: whole numbers, exact on every instruction set. The sums over
// groups and blocks are chains of fused multiply-adds in f32, in the order of the columns; of Q4_K
// and Q5_K, whose scales and biases are whole numbers times d and -dmin, those over groups are as
// simd/quantized.h has them (SixBitScales).
//
// Codes lie as the kernels want them for affine weights of `bits` bits: see unit_position(). For
// blocks they lie in the order of the columns, as for 8 bits.
constexpr int64_t kQuantBlock = 256;
constexpr int64_t kQuantUnit = 64;  // columns that are arranged together
constexpr int64_t kQuantGroups = kQuantBlock / 16;
struct QuantizedRows {
  int64_t tokens = 0;       // T
  int64_t cols = 0;         // K, a multiple of kQuantUnit
  int bits = 0;             // whose order the codes have: activation_bits(weights)
  int group = 0;            // of the weights: 16, 32, 64 or 128
  int8_t* codes = nullptr;  // [blocks, T, kQuantBlock]
  float* steps = nullptr;   // [blocks, T]
  float* sums = nullptr;    // [blocks, T, kQuantGroups]; one per group, the rest unused

  int64_t blocks() const { return (cols + kQuantBlock - 1) / kQuantBlock; }
};
// Where column `index` of a unit lies: the columns of a group stay together, and in it codes that
// share a place in successive bytes of the packed weights are neighbours, so that one mask or shift
// of the weights lines up with them.
constexpr int64_t unit_position(int bits, int group, int64_t index) {
  const int64_t width = group < kQuantUnit ? group : kQuantUnit;
  const int64_t per_byte = bits == 4 ? 2 : bits == 2 ? 4 : 1, i = index % width;
  return index / width * width + i % per_byte * (width / per_byte) + i / per_byte;
}
inline int activation_bits(const WeightMatrix& w) {
  return w.blocks() ? 8 : w.bits;
}
// Whether products with these weights may use rounded activations.
inline bool takes_quantized_rows(const WeightMatrix& w) {
  return w.quantized() && w.cols % kQuantUnit == 0;
}

// Rounds rows [first_token, last_token) of x, [T, K].
struct QuantizeArgs {
  const float* x = nullptr;
  int64_t first_token = 0;
  int64_t last_token = 0;
  const QuantizedRows* out = nullptr;
};

// As MatmulArgs, with the activations rounded.
struct QuantizedMatmulArgs {
  const QuantizedRows* x = nullptr;
  const WeightMatrix* weight = nullptr;
  int64_t first_row = 0;
  int64_t last_row = 0;
  float* y = nullptr;        // [T, N]; only the columns [first_row, last_row) are written
  float* scratch = nullptr;  // quantized_scratch_floats(K), not shared between threads
};
int64_t quantized_scratch_floats(int64_t cols);

// Positions per block of the KV cache. Attention folds block after block into a running softmax;
// blocks start at multiples of this, so a query's result does not depend on how it came in.
constexpr int kKvBlock = 64;
// Positions per piece of a timeline. Blocks fold into the softmax of their piece, which starts
// afresh, and pieces into the result: so the pieces of one long timeline can be several threads'
// work without changing a bit.
constexpr int kAttendPiece = 256;
// Query rows that one call of attend() takes at most.
constexpr int kAttendRows = 16;

// Softmax attention of a few query rows that share one K/V head.
struct AttendArgs {
  const float* const* q = nullptr;  // [rows] pointers to [head_dim]
  float* const* out = nullptr;      // [rows] pointers to [head_dim]
  // Row r sees the keys at positions [first[r], last[r]), at least one.
  const int64_t* first = nullptr;
  const int64_t* last = nullptr;
  int rows = 0;
  int head_dim = 0;   // a multiple of 16
  float scale = 1;    // of q . k
  float softcap = 0;  // cap * tanh(score / cap) before the softmax; 0: none
  KvType kv_type = KvType::kBF16;
  // Block b (positions b * kKvBlock ...) starts at blocks[b - first_block]; the keys of this head,
  // kKvBlock rows (kv_rows.h), are k_offset bytes further, its values v_offset.
  const std::byte* const* blocks = nullptr;
  int64_t k_offset = 0;
  int64_t v_offset = 0;
  int64_t first_block = 0;
  float* scratch = nullptr;  // attend_scratch_floats(head_dim)
  // Where set, only piece `piece` (positions piece * kAttendPiece ...) is done, and goes here
  // instead of to `out`: [rows, attend_partial_floats(head_dim)].
  float* partial = nullptr;
  int64_t piece = 0;
};
int64_t attend_scratch_floats(int head_dim);
// A row's weighted sum of values, then the largest score and the sum of weights.
constexpr int64_t attend_partial_floats(int head_dim) {
  return head_dim + 16;
}

// c[i, j] = (add ? c[i, j] : 0) + sum over k of a[i, k] b[k, j], of packed operands.
template <class Value>
struct PackedProduct {
  const Value* a = nullptr;
  const Value* b = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t depth = 0;
  float* c = nullptr;  // [rows, cols], rows `stride` floats apart
  int64_t stride = 0;
  bool add = false;
};
// Of f32: one chain of fused multiply-adds for each c, in the order of k, so that a product may be
// taken in blocks of k without changing a bit. The operands are panels of `gemm_rows` rows of a,
// [depth, gemm_rows] each, and of `gemm_cols` columns of b, [depth, gemm_cols] each, the last one
// filled up with anything finite.
using GemmArgs = PackedProduct<float>;

// Of bf16, with products and sums in f32. The operands are panels of kBf16Panel rows of a and as
// many columns of b. A panel is steps of kBf16Step of k, filled up with zeros to whole ones, and a
// step is two tiles of kBf16Tile rows, or columns: as the tiles of AMX have them, the rows of a one
// after another, and of b the pairs of k, each of all 16 columns. A table adds up a step in an
// order of its own, and the steps in the order of k: products may be taken in blocks of whole
// steps.
using Bf16GemmArgs = PackedProduct<BFloat16>;
constexpr int64_t kBf16Tile = 16;
constexpr int64_t kBf16Panel = 2 * kBf16Tile;
constexpr int64_t kBf16Step = 32;
constexpr int64_t kBf16TileSize = kBf16Tile * kBf16Step;
enum class Bf16Operand { kRows, kCols };  // a and b
// Where in its panel the value of row (or column) i at k lies.
[[gnu::always_inline]] constexpr int64_t bf16_position(Bf16Operand operand, int64_t i, int64_t k) {
  const int64_t tile = (k / kBf16Step * 2 + i / kBf16Tile) * kBf16TileSize;
  const int64_t row = i % kBf16Tile, at = k % kBf16Step;
  return tile + (operand == Bf16Operand::kRows ? row * kBf16Step + at
                                               : at / 2 * (2 * kBf16Tile) + 2 * row + at % 2);
}
[[gnu::always_inline]] constexpr int64_t bf16_depth(int64_t depth) {
  return (depth + kBf16Step - 1) / kBf16Step * kBf16Step;
}

// Rounds an operand to bf16, to nearest, ties to even, and packs panels [first, last) of it to
// where they lie from `out` on: panel p at out + p * panel. Some steps of longer panels may be
// packed at a time.
struct Bf16PackArgs {
  Bf16Operand operand = Bf16Operand::kRows;
  const float* data = nullptr;  // row (or column) i at k is data[i * stride + k * k_stride]
  int64_t count = 0;            // rows, or columns
  int64_t depth = 0;
  int64_t stride = 0;
  int64_t k_stride = 0;
  int64_t first = 0;
  int64_t last = 0;
  BFloat16* out = nullptr;
  int64_t panel = 0;  // values from one panel of it to the next
};

// Groups and blocks of weights are of so many columns, or of a part of them.
constexpr int64_t kDequantizeUnit = 256;

struct Kernels {
  std::string_view isa;  // "ref", "avx2", "avx512", "amx", "neon"

  void (*matmul)(const MatmulArgs& args);
  void (*quantize)(const QuantizeArgs& args);
  void (*quantized_matmul)(const QuantizedMatmulArgs& args);
  // out[last - first] = columns [first, last) of a row; both are multiples of kDequantizeUnit, but
  // for a `last` at the end.
  void (*dequantize)(const WeightMatrix& weight, int64_t row, int64_t first, int64_t last,
                     float* out);
  void dequantize_row(const WeightMatrix& weight, int64_t row, float* out) const {
    dequantize(weight, row, 0, weight.cols, out);
  }
  // y = x / sqrt(mean(x^2) + eps) * weight over n values; Gemma's "1 +" is already in `weight`.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);
  // gate = gelu_tanh(gate) * up over n values.
  void (*gelu_mul)(float* gate, const float* up, int64_t n);
  // x = cap * tanh(x / cap) over n values.
  void (*softcap)(float* x, int64_t n, float cap);
  void (*attend)(const AttendArgs& args);
  // out[head_dim] of one row from its `count` partials, in order, `stride` floats apart.
  void (*merge_attention)(const float* partials, int64_t count, int64_t stride, int head_dim,
                          float* out);

  // What training needs besides. The sizes of packed panels are part of the table.
  int gemm_rows;
  int gemm_cols;
  void (*gemm)(const GemmArgs& args);
  // nullptr, both, where the instruction set multiplies no bf16 faster than f32.
  void (*pack_bf16)(const Bf16PackArgs& args);
  void (*gemm_bf16)(const Bf16GemmArgs& args);
  // x = softmax(x) over n >= 1 values; returns log(sum of e^x).
  double (*softmax)(float* x, int64_t n);
  // Of gelu_mul: `d_gate` holds the gradient of its result and becomes that of `gate`; that of `up`
  // is added to `d_up`. `gate` and `up` are as before gelu_mul.
  void (*gelu_mul_backward)(const float* gate, const float* up, float* d_gate, float* d_up,
                            int64_t n);
};

// The tables this machine can run, slowest first; the first is always ref.
std::span<const Kernels* const> supported_kernels();

// The fastest table, or the one that the environment variable LAPIDARY_ISA names. Throws
// Error{kUsage} when that is unknown or not supported by this CPU.
const Kernels& best_kernels();

}  // namespace lapidary
