// The definition of every kernel: obvious loops, sums in double, rounded to f32 once.
#include "kernels/ref/ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/float16.h"
#include "kernels/blocks.h"
#include "kernels/kv_rows.h"

namespace lapidary::ref {

uint32_t code_at(const std::byte* row, int bits, int64_t index) {
  const int64_t bit = index * bits;
  uint32_t window = static_cast<uint32_t>(row[bit / 8]);
  if (bit % 8 + bits > 8) window |= static_cast<uint32_t>(row[bit / 8 + 1]) << 8;
  return (window >> (bit % 8)) & ((1u << bits) - 1u);
}

namespace {

// Columns of a row of a quantised matrix, from a multiple of the block's width or the group's on.
struct Codes {
  std::vector<uint8_t> codes;         // [cols]
  std::vector<float> scales, biases;  // [cols / group]

  Codes(const WeightMatrix& w, int64_t row, int64_t first, int64_t cols)
      : codes(static_cast<size_t>(cols)),
        scales(static_cast<size_t>(cols / w.group)),
        biases(scales.size()) {
    if (w.blocks())
      read_blocks(w, reinterpret_cast<const uint8_t*>(w.data) + row * w.row_bytes(), first);
    else
      read_affine(w, row, first);
  }

  CodedWeight at(size_t k) const {
    const size_t g = k * scales.size() / codes.size();
    return {static_cast<float>(codes[k]), scales[g], biases[g]};
  }

 private:
  void read_affine(const WeightMatrix& w, int64_t row, int64_t first) {
    const std::byte* data = w.data + row * w.row_bytes();
    for (size_t k = 0; k < codes.size(); ++k)
      codes[k] = static_cast<uint8_t>(code_at(data, w.bits, first + static_cast<int64_t>(k)));
    for (size_t g = 0; g < scales.size(); ++g) {
      const int64_t at = row * w.row_groups() + first / w.group + static_cast<int64_t>(g);
      scales[g] = float_at(w.scales, w.dtype, at);
      biases[g] = float_at(w.biases, w.dtype, at);
    }
  }
  void read_blocks(const WeightMatrix& w, const uint8_t* row, int64_t first) {
    const BlockFormat& sizes = block_format(w.format);
    blocks::with_block(w.format, [&]<class Block>() {
      for (int64_t k = 0; k < std::ssize(codes); k += sizes.cols) {
        const uint8_t* block = row + (first + k) / sizes.cols * sizes.bytes;
        Block::codes(block, codes.data() + k);
        Block::scales(block, scales.data() + k / w.group, biases.data() + k / w.group);
      }
    });
  }
};

}  // namespace

CodedWeight coded_weight_at(const WeightMatrix& w, int64_t row, int64_t col) {
  const int64_t width = w.blocks() ? block_format(w.format).cols : w.group;
  return Codes(w, row, col / width * width, width).at(static_cast<size_t>(col % width));
}

namespace {

float value(const CodedWeight& weight) {
  return std::fma(weight.code, weight.scale, weight.bias);
}

}  // namespace

float weight_at(const WeightMatrix& w, int64_t row, int64_t col) {
  return w.quantized() ? value(coded_weight_at(w, row, col))
                       : float_at(w.data + row * w.row_bytes(), w.dtype, col);
}

namespace {

void dequantize(const WeightMatrix& w, int64_t row, int64_t first, int64_t last, float* out) {
  if (w.quantized()) {
    const Codes codes(w, row, first, last - first);
    for (int64_t k = 0; k < last - first; ++k) out[k] = value(codes.at(static_cast<size_t>(k)));
  } else {
    for (int64_t k = first; k < last; ++k) out[k - first] = weight_at(w, row, k);
  }
}

void matmul(const MatmulArgs& a) {
  const WeightMatrix& w = *a.weight;
  for (int64_t n = a.first_row; n < a.last_row; ++n) {
    dequantize(w, n, 0, w.cols, a.scratch);
    for (int64_t t = 0; t < a.tokens; ++t) {
      double sum = 0;
      for (int64_t k = 0; k < w.cols; ++k) sum += double{a.x[t * w.cols + k]} * a.scratch[k];
      a.y[t * w.rows + n] = static_cast<float>(sum);
    }
  }
}

void quantize(const QuantizeArgs& a) {
  const QuantizedRows& out = *a.out;
  for (int64_t t = a.first_token; t < a.last_token; ++t)
    for (int64_t b = 0; b < out.blocks(); ++b) {
      const int64_t begin = b * kQuantBlock, end = std::min(begin + kQuantBlock, out.cols);
      const float* x = a.x + t * out.cols;
      float largest = 0;
      for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::abs(x[k]));
      const int64_t cell = b * out.tokens + t;
      out.steps[cell] = largest / 127.0f;
      const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
      float* sums = out.sums + cell * kQuantGroups;
      for (int64_t k = begin; k < end; k += out.group) sums[(k - begin) / out.group] = 0;
      for (int64_t k = begin; k < end; ++k) {
        const float code = std::nearbyint(x[k] * inverse);
        const int64_t unit = (k - begin) / kQuantUnit * kQuantUnit;
        out.codes[cell * kQuantBlock + unit + unit_position(out.bits, out.group, k % kQuantUnit)] =
            static_cast<int8_t>(code);
        sums[(k - begin) / out.group] += code;
      }
    }
}

// One output: what the comment at QuantizedRows says.
double quantized_dot(const QuantizedRows& x, int64_t t, const Codes& weights) {
  double y = 0;
  for (int64_t begin = 0; begin < x.cols; begin += x.group) {
    const int64_t cell = begin / kQuantBlock * x.tokens + t;
    const int8_t* codes = x.codes + cell * kQuantBlock;
    double dot = 0;
    for (int64_t k = begin; k < begin + x.group; ++k) {
      const int64_t unit = k % kQuantBlock / kQuantUnit * kQuantUnit;
      dot += static_cast<double>(codes[unit + unit_position(x.bits, x.group, k % kQuantUnit)]) *
             weights.codes[static_cast<size_t>(k)];
    }
    const auto g = static_cast<size_t>(begin / x.group);
    const double sum = x.sums[cell * kQuantGroups + begin % kQuantBlock / x.group];
    y += double{x.steps[cell]} * (weights.scales[g] * dot + weights.biases[g] * sum);
  }
  return y;
}

void quantized_matmul(const QuantizedMatmulArgs& a) {
  for (int64_t n = a.first_row; n < a.last_row; ++n) {
    const Codes weights(*a.weight, n, 0, a.weight->cols);
    for (int64_t t = 0; t < a.x->tokens; ++t)
      a.y[t * a.weight->rows + n] = static_cast<float>(quantized_dot(*a.x, t, weights));
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * scale * weight[i]);
}

void gelu_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double x = gate[i];
    const double inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);  // sqrt(2 / pi)
    gate[i] = static_cast<float>(0.5 * x * (1.0 + std::tanh(inner)) * up[i]);
  }
}

void softcap(float* x, int64_t n, float cap) {
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(cap * std::tanh(double{x[i]} / cap));
}

// Not online: all scores of a row (or of a piece of it), one softmax, one weighted sum.
void attend(const AttendArgs& a) {
  const auto element = [&](int64_t offset, int64_t position, int d) {
    const std::byte* head = a.blocks[position / kKvBlock - a.first_block] + offset;
    const int64_t row = position % kKvBlock * kv_row_bytes(a.kv_type, a.head_dim);
    return kv_value(head + row, a.head_dim, a.kv_type, d);
  };
  std::vector<double> weights;
  for (int r = 0; r < a.rows; ++r) {
    weights.clear();
    double largest = -INFINITY;
    int64_t first = a.first[r], last = a.last[r];
    if (a.partial != nullptr) {
      first = std::max(first, a.piece * kAttendPiece);
      last = std::min(last, (a.piece + 1) * kAttendPiece);
    }
    for (int64_t p = first; p < last; ++p) {
      double score = 0;
      for (int d = 0; d < a.head_dim; ++d) score += double{a.q[r][d]} * element(a.k_offset, p, d);
      score *= a.scale;
      if (a.softcap > 0) score = a.softcap * std::tanh(score / a.softcap);
      weights.push_back(score);
      largest = std::max(largest, score);
    }
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    float* partial =
        a.partial == nullptr ? nullptr : a.partial + r * attend_partial_floats(a.head_dim);
    for (int d = 0; d < a.head_dim; ++d) {
      double sum = 0;
      for (int64_t p = first; p < last; ++p)
        sum += weights[static_cast<size_t>(p - first)] * element(a.v_offset, p, d);
      if (partial == nullptr)
        a.out[r][d] = static_cast<float>(sum / total);
      else
        partial[d] = static_cast<float>(sum);
    }
    if (partial != nullptr) {
      partial[a.head_dim] = static_cast<float>(largest);
      partial[a.head_dim + 1] = static_cast<float>(total);
    }
  }
}

void merge_attention(const float* partials, int64_t count, int64_t stride, int head_dim,
                     float* out) {
  double largest = -INFINITY, total = 0;
  const auto weight = [&](int64_t i) {
    const float* p = partials + i * stride;
    return p[head_dim + 1] == 0 ? 0.0 : std::exp(double{p[head_dim]} - largest);
  };
  for (int64_t i = 0; i < count; ++i)
    if (partials[i * stride + head_dim + 1] != 0)
      largest = std::max(largest, double{partials[i * stride + head_dim]});
  for (int64_t i = 0; i < count; ++i) total += weight(i) * partials[i * stride + head_dim + 1];
  for (int d = 0; d < head_dim; ++d) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += weight(i) * partials[i * stride + d];
    out[d] = static_cast<float>(sum / total);
  }
}

}  // namespace

constexpr int kGemmRows = 3, kGemmCols = 5;  // odd, so that whoever packs for others shows

void gemm(const GemmArgs& g) {
  for (int64_t i = 0; i < g.rows; ++i)
    for (int64_t j = 0; j < g.cols; ++j) {
      const float* a = g.a + i / kGemmRows * kGemmRows * g.depth + i % kGemmRows;
      const float* b = g.b + j / kGemmCols * kGemmCols * g.depth + j % kGemmCols;
      float* c = g.c + i * g.stride + j;
      double sum = g.add ? double{*c} : 0;
      for (int64_t k = 0; k < g.depth; ++k) sum += double{a[k * kGemmRows]} * b[k * kGemmCols];
      *c = static_cast<float>(sum);
    }
}

void pack_bf16(const Bf16PackArgs& p) {
  const int64_t depth = bf16_depth(p.depth);
  for (int64_t i = p.first * kBf16Panel; i < p.last * kBf16Panel; ++i)
    for (int64_t k = 0; k < depth; ++k) {
      const bool there = i < p.count && k < p.depth;
      const float value = there ? p.data[i * p.stride + k * p.k_stride] : 0;
      p.out[i / kBf16Panel * p.panel + bf16_position(p.operand, i % kBf16Panel, k)] =
          to_bfloat16(value);
    }
}

void gemm_bf16(const Bf16GemmArgs& g) {
  const int64_t panel = kBf16Panel * bf16_depth(g.depth);
  const auto value = [panel](const BFloat16* packed, Bf16Operand operand, int64_t i, int64_t k) {
    return double{
        to_float(packed[i / kBf16Panel * panel + bf16_position(operand, i % kBf16Panel, k)])};
  };
  for (int64_t i = 0; i < g.rows; ++i)
    for (int64_t j = 0; j < g.cols; ++j) {
      float* c = g.c + i * g.stride + j;
      double sum = g.add ? double{*c} : 0;
      for (int64_t k = 0; k < g.depth; ++k)
        sum += value(g.a, Bf16Operand::kRows, i, k) * value(g.b, Bf16Operand::kCols, j, k);
      *c = static_cast<float>(sum);
    }
}

double softmax(float* x, int64_t n) {
  const double largest = *std::max_element(x, x + n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += std::exp(x[i] - largest);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(std::exp(x[i] - largest) / total);
  return largest + std::log(total);
}

void gelu_mul_backward(const float* gate, const float* up, float* d_gate, float* d_up, int64_t n) {
  const double c = std::sqrt(2 / M_PI);
  for (int64_t i = 0; i < n; ++i) {
    const double x = gate[i], d = d_gate[i];
    const double t = std::tanh(c * (x + 0.044715 * x * x * x));
    const double slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    d_up[i] = static_cast<float>(d_up[i] + d * 0.5 * x * (1 + t));
    d_gate[i] = static_cast<float>(d * slope * up[i]);
  }
}

const Kernels& kernels() {
  static constexpr Kernels table{.isa = "ref",
                                 .matmul = matmul,
                                 .quantize = quantize,
                                 .quantized_matmul = quantized_matmul,
                                 .dequantize = dequantize,
                                 .rms_norm = rms_norm,
                                 .gelu_mul = gelu_mul,
                                 .softcap = softcap,
                                 .attend = attend,
                                 .merge_attention = merge_attention,
                                 .gemm_rows = kGemmRows,
                                 .gemm_cols = kGemmCols,
                                 .gemm = gemm,
                                 .pack_bf16 = pack_bf16,
                                 .gemm_bf16 = gemm_bf16,
                                 .softmax = softmax,
                                 .gelu_mul_backward = gelu_mul_backward};
  return table;
}

}  // namespace lapidary::ref
