#include "tensor/ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "lapidary/error.h"

#include "tensor/check_shape.h"

namespace lapidary {

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
  if (ex.tape == nullptr) return;
  ex.tape->record([&ex, ids, scale, out, values = values_of(table)] {
    const Matrix d_out = ex.tape->gradient(out);
    if (float* d_table = ex.tape->gradient(values)) {
      // Threads share the columns: a token may come twice.
      ex.for_each(out.cols, out.rows, [&](int64_t first, int64_t last, int) {
        for (int64_t t = 0; t < out.rows; ++t) {
          float* row = d_table + int64_t{ids[static_cast<size_t>(t)]} * out.cols;
          for (int64_t i = first; i < last; ++i) row[i] += scale * d_out.row(t)[i];
        }
      });
    }
    std::fill_n(d_out.data, d_out.size(), 0.0f);
  });
}

namespace {

// Sum of term(i) over [0, n), by lanes: compilers make vector code of it.
template <class Fn>
double sum_of(int64_t n, Fn&& term) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (; i < n; ++i) lanes[0] += term(i);
  return std::accumulate(lanes, lanes + kLanes, 0.0);
}

// One row, with r = 1 / sqrt(mean x² + eps) and y = x r w: d becomes r w d - x r³ / n (w d . x).
void rms_norm_row_backward(const float* x, std::span<const float> weight, float r, float* d) {
  const float* w = weight.data();
  const int64_t n = std::ssize(weight);
  const double dot = sum_of(n, [&](int64_t i) { return double{w[i] * d[i]} * x[i]; });
  const auto along = static_cast<float>(dot * r * r * r / static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) d[i] = r * w[i] * d[i] - along * x[i];
}

void rms_norm_backward(Executor& ex, Matrix x, std::span<const float> weight, double eps, Matrix y,
                       Matrix kept) {
  Tape& tape = *ex.tape;
  const Matrix dy = tape.gradient(y), dx = tape.gradient(x), inverse = tape.room(x.rows, 1);
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      const float* row = kept.row(t);
      const double squares = sum_of(x.cols, [&](int64_t i) { return double{row[i]} * row[i]; });
      inverse.data[t] =
          static_cast<float>(1 / std::sqrt(squares / static_cast<double>(x.cols) + eps));
    }
  });
  if (float* dw = tape.gradient(weight.data()))
    ex.for_each(x.cols, x.rows, [&](int64_t first, int64_t last, int) {
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t i = first; i < last; ++i)
          dw[i] += dy.row(t)[i] * kept.row(t)[i] * inverse.data[t];
    });
  ex.for_each(x.rows, 4 * x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t) {
      float* d = dy.row(t);
      rms_norm_row_backward(kept.row(t), weight, inverse.data[t], d);
      if (dx.data == dy.data) continue;  // in place: it is the gradient of x already
      for (int64_t i = 0; i < x.cols; ++i) dx.row(t)[i] += d[i];
      std::fill_n(d, x.cols, 0.0f);
    }
  });
}

}  // namespace

void rms_norm(Executor& ex, Matrix x, std::span<const float> weight, double eps, Matrix y) {
  check_shape("rms_norm", y, x.rows, x.cols);
  LAPIDARY_CHECK(static_cast<int64_t>(weight.size()) == x.cols, "[rms_norm] weight's length");
  const auto norm = [&ex, weight, eps](Matrix from, Matrix to) {
    ex.for_each(from.rows, from.cols, [&](int64_t first, int64_t last, int) {
      for (int64_t t = first; t < last; ++t)
        ex.kernels().rms_norm(from.row(t), weight.data(), static_cast<float>(eps), from.cols,
                              to.row(t));
    });
  };
  if (ex.tape != nullptr) {
    const Matrix kept = ex.tape->keep(ex, x);
    ex.tape->record(
        [&ex, x, weight, eps, y, kept] { rms_norm_backward(ex, x, weight, eps, y, kept); });
    ex.tape->remake(y, [norm, kept](Matrix out) { norm(kept, out); });
  }
  norm(x, y);
}

namespace {

// fn(offset, count) for pieces of `size` values, shared out to threads.
template <class Fn>
void for_pieces(Executor& ex, int64_t size, Fn&& fn) {
  constexpr int64_t kPiece = 512;
  ex.for_each((size + kPiece - 1) / kPiece, kPiece, [&](int64_t first, int64_t last, int) {
    fn(first * kPiece, std::min(last * kPiece, size) - first * kPiece);
  });
}

}  // namespace

void gelu_mul(Executor& ex, Matrix gate, Matrix up) {
  check_shape("gelu_mul", up, gate.rows, gate.cols);
  if (ex.tape != nullptr) {
    const Matrix kept_gate = ex.tape->keep(ex, gate), kept_up = ex.tape->keep(ex, up);
    ex.tape->record([&ex, gate, up, kept_gate, kept_up] {
      const Matrix d_gate = ex.tape->gradient(gate), d_up = ex.tape->gradient(up);
      for_pieces(ex, gate.size(), [&](int64_t at, int64_t count) {
        ex.kernels().gelu_mul_backward(kept_gate.data + at, kept_up.data + at, d_gate.data + at,
                                       d_up.data + at, count);
      });
    });
    ex.tape->remake(gate, [&ex, kept_gate, kept_up](Matrix out) {
      for_pieces(ex, out.size(), [&](int64_t at, int64_t count) {
        std::copy_n(kept_gate.data + at, count, out.data + at);
        ex.kernels().gelu_mul(out.data + at, kept_up.data + at, count);
      });
    });
  }
  for_pieces(ex, gate.size(), [&](int64_t at, int64_t count) {
    ex.kernels().gelu_mul(gate.data + at, up.data + at, count);
  });
}

namespace {

void add_values(Executor& ex, Matrix x, Matrix y) {
  ex.for_each(x.rows, x.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first * x.cols; i < last * x.cols; ++i) x.data[i] += y.data[i];
  });
}

}  // namespace

void add(Executor& ex, Matrix x, Matrix y) {
  check_shape("add", y, x.rows, x.cols);
  add_values(ex, x, y);
  if (ex.tape != nullptr)
    ex.tape->record([&ex, x, y] { add_values(ex, ex.tape->gradient(y), ex.tape->gradient(x)); });
}

void softcap(Executor& ex, Matrix x, double cap) {
  for_pieces(ex, x.size(), [&](int64_t at, int64_t count) {
    ex.kernels().softcap(x.data + at, count, static_cast<float>(cap));
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
  turn(ex, x, 1);
  if (ex.tape != nullptr) ex.tape->record([&ex, this, x] { turn(ex, ex.tape->gradient(x), -1); });
}

void Rotary::turn(Executor& ex, Matrix x, float direction) const {
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
          const float a = low[i], b = high[i], s = direction * sin[i];
          low[i] = a * cos[i] - b * s;
          high[i] = b * cos[i] + a * s;
        }
      }
    }
  });
}

}  // namespace lapidary
