#include "tensor/ops.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "lapidary/error.h"

namespace lapidary {

namespace {

void check_shape(const char* op, Matrix m, int64_t rows, int64_t cols) {
  LAPIDARY_CHECK(
      m.rows == rows && m.cols == cols,
      fmt::format("[{}] got [{}, {}], expected [{}, {}]", op, m.rows, m.cols, rows, cols));
}

}  // namespace

Executor::Executor(const Kernels& kernels, int threads, Activations activations)
    : kernels_(kernels),
      pool_(threads),
      scratch_(static_cast<size_t>(threads)),
      activations_(activations) {}

void Executor::reserve_scratch(int64_t floats) {
  for (auto& scratch : scratch_)
    if (static_cast<int64_t>(scratch.size()) < floats) scratch.resize(static_cast<size_t>(floats));
}

QuantizedRows Executor::quantized_rows(int64_t tokens, const WeightMatrix& weight) {
  QuantizedRows rows{.tokens = tokens,
                     .cols = weight.cols,
                     .bits = activation_bits(weight),
                     .group = weight.group};
  const auto cells = static_cast<size_t>(rows.blocks() * tokens);
  const auto grow = [](auto& vector, size_t size) {
    if (vector.size() < size) vector.resize(size);
    return vector.data();
  };
  rows.codes = grow(codes_, cells * kQuantBlock);
  rows.steps = grow(steps_, cells);
  rows.sums = grow(sums_, cells * kQuantGroups);
  return rows;
}

namespace {

constexpr int64_t kShareRows = 16;  // rows of a share: a multiple of what the kernels take at once

// fn(product, first row, last row, thread) for the rows of all products, shared out to threads.
template <class Fn>
void for_each_row(Executor& ex, std::span<const Product> products, int64_t work, Fn&& fn) {
  int64_t total = 0;
  for (const Product& p : products) total += (p.w.rows + kShareRows - 1) / kShareRows;
  ex.for_each(total, kShareRows * work, [&](int64_t first, int64_t last, int thread) {
    int64_t begin = 0;
    for (const Product& p : products) {
      const int64_t end = begin + (p.w.rows + kShareRows - 1) / kShareRows;
      const int64_t from = std::max(first, begin), to = std::min(last, end);
      if (from < to)
        fn(p, (from - begin) * kShareRows, std::min((to - begin) * kShareRows, p.w.rows), thread);
      begin = end;
    }
  });
}

void matmul_float(Executor& ex, Matrix x, std::span<const Product> products) {
  ex.reserve_scratch(matmul_scratch_floats(x.cols));
  for_each_row(ex, products, x.cols * x.rows,
               [&](const Product& p, int64_t first, int64_t last, int thread) {
                 ex.kernels().matmul({.x = x.data,
                                      .tokens = x.rows,
                                      .weight = &p.w,
                                      .first_row = first,
                                      .last_row = last,
                                      .y = p.y.data,
                                      .scratch = ex.scratch(thread)});
               });
}

void matmul_rounded(Executor& ex, Matrix x, std::span<const Product> products) {
  ex.reserve_scratch(quantized_scratch_floats(x.cols));
  const QuantizedRows rows = ex.quantized_rows(x.rows, products.front().w);
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    ex.kernels().quantize({.x = x.data, .first_token = first, .last_token = last, .out = &rows});
  });
  for_each_row(ex, products, x.cols * x.rows,
               [&](const Product& p, int64_t first, int64_t last, int thread) {
                 ex.kernels().quantized_matmul({.x = &rows,
                                                .weight = &p.w,
                                                .first_row = first,
                                                .last_row = last,
                                                .y = p.y.data,
                                                .scratch = ex.scratch(thread)});
               });
}

}  // namespace

void matmul(Executor& ex, Matrix x, std::initializer_list<Product> products) {
  const std::span<const Product> all(products.begin(), products.size());
  const WeightMatrix& w = all.front().w;
  bool alike = true;
  for (const Product& p : all) {
    check_shape("matmul x", x, x.rows, p.w.cols);
    check_shape("matmul y", p.y, x.rows, p.w.rows);
    alike = alike && p.w.format == w.format && p.w.bits == w.bits && p.w.group == w.group;
  }
  if (!alike) {
    for (const Product& p : all) matmul(ex, x, {p});
  } else if (ex.activations() == Activations::kRounded && takes_quantized_rows(w)) {
    matmul_rounded(ex, x, all);
  } else {
    matmul_float(ex, x, all);
  }
}

void embed(Executor& ex, std::span<const Token> ids, const WeightMatrix& table, float scale,
           Matrix out) {
  check_shape("embed", out, static_cast<int64_t>(ids.size()), table.cols);
  ex.for_each(out.rows, out.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      const Token id = ids[static_cast<size_t>(t)];
      LAPIDARY_CHECK(id >= 0 && id < table.rows,
                     fmt::format("[embed] id {} of {}", id, table.rows));
      ex.kernels().dequantize_row(table, id, out.row(t));
      for (int64_t i = 0; i < out.cols; ++i) out.row(t)[i] *= scale;
    }
  });
}

void rms_norm(Executor& ex, Matrix x, std::span<const float> weight, double eps, Matrix y) {
  check_shape("rms_norm", y, x.rows, x.cols);
  LAPIDARY_CHECK(static_cast<int64_t>(weight.size()) == x.cols, "[rms_norm] weight's length");
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t)
      ex.kernels().rms_norm(x.row(t), weight.data(), static_cast<float>(eps), x.cols, y.row(t));
  });
}

void gelu_mul(Executor& ex, Matrix gate, Matrix up) {
  check_shape("gelu_mul", up, gate.rows, gate.cols);
  constexpr int64_t kPiece = 512;
  const int64_t pieces = (gate.size() + kPiece - 1) / kPiece;
  ex.for_each(pieces, kPiece, [&](int64_t first, int64_t last, int) {
    const int64_t begin = first * kPiece;
    ex.kernels().gelu_mul(gate.data + begin, up.data + begin,
                          std::min(last * kPiece, gate.size()) - begin);
  });
}

void add(Executor& ex, Matrix x, Matrix y) {
  check_shape("add", y, x.rows, x.cols);
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first * x.cols; i < last * x.cols; ++i) x.data[i] += y.data[i];
  });
}

void softcap(Executor& ex, Matrix x, double cap) {
  constexpr int64_t kPiece = 512;
  const int64_t pieces = (x.size() + kPiece - 1) / kPiece;
  ex.for_each(pieces, kPiece, [&](int64_t first, int64_t last, int) {
    const int64_t begin = first * kPiece;
    ex.kernels().softcap(x.data + begin, std::min(last * kPiece, x.size()) - begin,
                         static_cast<float>(cap));
  });
}

Rotary::Rotary(int head_dim, double theta, double factor)
    : half_(head_dim / 2), inverse_frequency_(static_cast<size_t>(half_)) {
  // Every step in f32, as the reference computes it: at position 8000 a last bit of the frequency
  // is a visible angle.
  for (int64_t i = 0; i < half_; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency = 1.0f / std::pow(static_cast<float>(theta), exponent);
    inverse_frequency_[static_cast<size_t>(i)] = frequency / static_cast<float>(factor);
  }
}

void Rotary::set_positions(Executor& ex, std::span<const int64_t> positions) {
  const auto rows = static_cast<int64_t>(positions.size());
  cos_.resize(static_cast<size_t>(rows * half_));
  sin_.resize(static_cast<size_t>(rows * half_));
  constexpr int64_t kCostOfSinCos = 64;
  ex.for_each(rows, half_ * kCostOfSinCos, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t i = 0; i < half_; ++i) {
        const float angle = static_cast<float>(positions[static_cast<size_t>(t)]) *
                            inverse_frequency_[static_cast<size_t>(i)];
        cos_[static_cast<size_t>(t * half_ + i)] = static_cast<float>(std::cos(double{angle}));
        sin_[static_cast<size_t>(t * half_ + i)] = static_cast<float>(std::sin(double{angle}));
      }
  });
}

void Rotary::apply(Executor& ex, Matrix x) const {
  const int64_t heads = x.cols / (2 * half_);
  LAPIDARY_CHECK(x.cols == heads * 2 * half_ && x.size() == heads * 2 * std::ssize(cos_),
                 "[rotary] shape of x");
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      const float* cos = cos_.data() + t * half_;
      const float* sin = sin_.data() + t * half_;
      for (int64_t h = 0; h < heads; ++h) {
        float* low = x.row(t) + h * 2 * half_;
        float* high = low + half_;
        for (int64_t i = 0; i < half_; ++i) {
          const float a = low[i], b = high[i];
          low[i] = a * cos[i] - b * sin[i];
          high[i] = b * cos[i] + a * sin[i];
        }
      }
    }
  });
}

}  // namespace lapidary
