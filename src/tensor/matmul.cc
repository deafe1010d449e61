// Products with the weights of the model: in inference, with adapters, and backwards.
#include <algorithm>
#include <vector>

#include "tensor/check_shape.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"

namespace lapidary {

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

// change becomes strength * (gain (base + change) - base): what DoRA adds, of a product of factors.
void to_change(Executor& ex, const LowRank& low, Matrix base, Matrix change) {
  ex.for_each(change.rows, change.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t i = 0; i < change.cols; ++i) {
        const float before = base.row(t)[i];
        float& value = change.row(t)[i];
        value = low.strength * (low.gain(i) * (before + value) - before);
      }
  });
}

// Adds to y what the adapters of one matrix do.
void add_low_rank(Executor& ex, Matrix x, const Product& p) {
  if (p.w.low_rank.empty()) return;
  const bool magnitudes = p.w.has_magnitudes();
  int64_t rank = 0;
  for (const LowRank& low : p.w.low_rank) rank = std::max(rank, low.rank);
  float* memory = ex.low_rank(x.rows * (rank + (magnitudes ? 2 : 1) * p.w.rows));
  const Matrix outer{memory + x.rows * rank, x.rows, p.w.rows};
  const Matrix base{outer.data + outer.size(), x.rows, p.w.rows};
  if (magnitudes) std::copy_n(p.y.data, p.y.size(), base.data);
  for (const LowRank& low : p.w.low_rank) {
    const Matrix inner{memory, x.rows, low.rank};
    matmul(ex, x, dense_matrix(low.a, low.rank, p.w.cols), inner);
    for (int64_t i = 0; i < inner.size(); ++i) inner.data[i] *= low.scale;
    matmul(ex, inner, dense_matrix(low.b, p.w.rows, low.rank), outer);
    if (low.magnitude != nullptr) to_change(ex, low, base, outer);
    add(ex, p.y, outer);
  }
}

// The gradient of the result of an operation, which is the operation's to take: see tape.h.
class Taken {
 public:
  Taken(Executor& ex, Matrix gradient) : ex_(ex), gradient_(gradient) {}
  ~Taken() {
    ex_.for_each(gradient_.rows, gradient_.cols, [&](int64_t first, int64_t last, int) {
      std::fill(gradient_.row(first), gradient_.row(last), 0.0f);
    });
  }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  const Matrix& operator*() const { return gradient_; }

 private:
  Executor& ex_;
  Matrix gradient_;
};

// What an adapter's product leaves for its way back.
struct LowRankRecord {
  LowRank low;
  Matrix inner;  // [T, rank] scale * x aᵀ
  Dropout dropout;
  Matrix masked = {};  // [T, K] of x, what dropout left; otherwise it saw x itself
  Matrix sum = {};     // [T, N] of DoRA: the matrix's product and the adapter's

  Matrix seen(Matrix x) const { return dropout.rate > 0 ? masked : x; }
};

// y[T, N] = x wᵀ, and what the adapters of w begin with, scale * x aᵀ.
std::vector<LowRankRecord> multiply_weights(Executor& ex, Matrix x, const Product& p) {
  Tape& tape = *ex.tape;
  std::vector<LowRankRecord> adapters;
  std::vector<RightProduct> of_x = {{RightSide(p.w).transposed(), p.y, Into::kOverwrite}};
  for (const LowRank& low : p.w.low_rank) {
    LowRankRecord r{low, tape.room(x.rows, low.rank), tape.next_dropout()};
    const Strided a(low.a, low.rank, x.cols, x.cols);
    if (r.dropout.rate > 0) {
      r.masked = tape.keep(ex, x), r.dropout.apply(r.masked);
      gemm(ex, r.masked, a.transposed(), r.inner, Into::kOverwrite);
    } else {
      of_x.push_back({a.transposed(), r.inner, Into::kOverwrite});
    }
    adapters.push_back(r);
  }
  gemm(ex, x, of_x);
  for (const LowRankRecord& r : adapters)
    for (int64_t i = 0; i < r.inner.size(); ++i) r.inner.data[i] *= r.low.scale;
  return adapters;
}

Strided outer_of(const LowRank& low, int64_t rows) {
  return {low.b, rows, low.rank, low.rank};
}

void add_outer(Executor& ex, const LowRankRecord& r, Matrix y) {
  gemm(ex, r.inner, outer_of(r.low, y.cols).transposed(), y, Into::kAdd);
}

// `inner`: [T, rank] dy b.
void low_rank_backward(Executor& ex, const LowRankRecord& r, Matrix x, Matrix dy, Matrix inner,
                       Matrix dx) {
  Tape& tape = *ex.tape;
  const LowRank& low = r.low;
  const Strided a(low.a, low.rank, x.cols, x.cols);
  if (float* db = tape.gradient(low.b))
    gemm(ex, Strided(dy).transposed(), r.inner, {db, low.rank}, Into::kAdd);
  for (int64_t i = 0; i < inner.size(); ++i) inner.data[i] *= low.scale;
  if (float* da = tape.gradient(low.a))
    gemm(ex, Strided(inner).transposed(), r.seen(x), {da, x.cols}, Into::kAdd);
  if (dx.data == nullptr) return;
  if (r.dropout.rate > 0) {
    const Matrix masked = tape.room(dx.rows, dx.cols);
    gemm(ex, inner, a, masked, Into::kOverwrite);
    r.dropout.apply(masked);
    for (int64_t i = 0; i < dx.size(); ++i) dx.data[i] += masked.data[i];
  } else {
    gemm(ex, inner, a, dx, Into::kAdd);
  }
}

// y += strength * (gain z - base), for z = base and the product of the factors.
void dora_forward(Executor& ex, LowRankRecord& r, Matrix base, Matrix y) {
  const LowRank& low = r.low;
  const Matrix sum = r.sum = ex.tape->keep(ex, base);
  add_outer(ex, r, sum);
  ex.for_each(y.rows, y.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t i = 0; i < y.cols; ++i)
        y.row(t)[i] += low.strength * (low.gain(i) * sum.row(t)[i] - base.row(t)[i]);
  });
}

// Adds to the gradients by magnitude, factors and x, and strength * (gain - 1) dy to that by the
// base's product.
void dora_backward(Executor& ex, const LowRankRecord& r, Matrix x, Matrix dy, Matrix d_base,
                   Matrix dx) {
  const LowRank& low = r.low;
  float* d_magnitude = ex.tape->gradient(low.magnitude);
  const Matrix d_sum = ex.tape->room(dy.rows, dy.cols);
  ex.for_each(dy.cols, dy.rows, [&](int64_t first, int64_t last, int) {
    for (int64_t t = 0; t < dy.rows; ++t)
      for (int64_t i = first; i < last; ++i) {
        const float d = low.strength * dy.row(t)[i];
        d_sum.row(t)[i] = low.gain(i) * d;
        d_base.row(t)[i] += d_sum.row(t)[i] - d;
        if (d_magnitude != nullptr) d_magnitude[i] += d * low.inverse_norm[i] * r.sum.row(t)[i];
      }
  });
  const Matrix inner = ex.tape->room(dy.rows, low.rank);
  gemm(ex, d_sum, outer_of(low, dy.cols), inner, Into::kOverwrite);
  low_rank_backward(ex, r, x, d_sum, inner, dx);
}

// The way back of one product, with what it took made again where an adapter or the matrix, at dw,
// needs it.
void weights_backward(Executor& ex, const Linear& w, std::span<const LowRankRecord> adapters,
                      Matrix x, Matrix dy, float* dw, Matrix dx) {
  const Matrix d_base = w.has_magnitudes() ? ex.tape->keep(ex, dy) : dy;
  std::vector<RightProduct> of_dy;
  std::vector<Matrix> inner;
  for (const LowRankRecord& r : adapters) {
    if (r.low.magnitude != nullptr) {
      dora_backward(ex, r, x, dy, d_base, dx);
      inner.push_back({});
    } else {
      inner.push_back(ex.tape->room(dy.rows, r.low.rank));
      of_dy.push_back({outer_of(r.low, dy.cols), inner.back(), Into::kOverwrite});
    }
  }
  if (w.has_magnitudes()) gemm(ex, dy, of_dy), of_dy.clear();
  if (dx.data != nullptr) of_dy.push_back({w, dx, Into::kAdd});
  gemm(ex, d_base, of_dy);
  for (size_t i = 0; i < adapters.size(); ++i)
    if (inner[i].data != nullptr) low_rank_backward(ex, adapters[i], x, dy, inner[i], dx);
  if (dw != nullptr) gemm(ex, Strided(d_base).transposed(), x, {dw, w.cols}, Into::kAdd);
}

void matmul_recorded(Executor& ex, Matrix x, std::span<const Product> products) {
  Tape& tape = *ex.tape;
  const bool needs_x = std::any_of(products.begin(), products.end(), [&](const Product& p) {
    return !p.w.low_rank.empty() || tape.gradient(values_of(p.w)) != nullptr;
  });
  const auto kept = needs_x ? tape.keep_or_remake(ex, x) : nullptr;
  for (const Product& p : products) {
    std::vector<LowRankRecord> adapters = multiply_weights(ex, x, p);
    const Matrix base = p.w.has_magnitudes() ? tape.keep(ex, p.y) : Matrix{};
    for (LowRankRecord& r : adapters)
      if (r.low.magnitude != nullptr)
        dora_forward(ex, r, base, p.y);
      else
        add_outer(ex, r, p.y);
    tape.record([&ex, kept, x, y = p.y, w = &p.w, adapters = std::move(adapters)] {
      const Taken dy(ex, ex.tape->gradient(y));
      float* dw = ex.tape->gradient(values_of(*w));
      const Matrix before = dw != nullptr || !adapters.empty() ? kept() : Matrix{};
      weights_backward(ex, *w, adapters, before, *dy, dw, ex.tape->gradient(x));
    });
  }
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
  if (ex.tape != nullptr) return matmul_recorded(ex, x, all);
  if (!alike) {
    for (const Product& p : all) matmul(ex, x, {p});
    return;
  }
  if (ex.activations() == Activations::kRounded && takes_quantized_rows(w)) {
    matmul_rounded(ex, x, all);
  } else {
    matmul_float(ex, x, all);
  }
  for (const Product& p : all) add_low_rank(ex, x, p);
}

}  // namespace lapidary
