#include "gemma/adapter.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "gemma/layer_matrices.h"

namespace lapidary {

bool has_magnitudes(const Adapter& adapter) {
  return std::ranges::any_of(adapter.matrices, &AdapterMatrix::dora);
}

std::vector<std::string> adaptable_matrices() {
  return {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
}

std::pair<int64_t, int64_t> adaptable_shape(const Config& c, std::string_view name) {
  if (name == "self_attn.q_proj") return {c.q_dim(), c.hidden_size};
  if (name == "self_attn.o_proj") return {c.hidden_size, c.q_dim()};
  if (name == "mlp.down_proj") return {c.hidden_size, c.intermediate_size};
  if (name.starts_with("mlp.")) return {c.intermediate_size, c.hidden_size};
  return {c.kv_dim(), c.hidden_size};
}

namespace {

// |w + s b a|² = |w|² + 2 s b (a wᵀ) + s² b (a aᵀ) bᵀ, row by row of w and b.
void measure_rows(Executor& ex, AdapterMatrix& m, const WeightMatrix& w) {
  AlignedVector<float> products(static_cast<size_t>(m.rank * w.rows));  // a wᵀ, [rank, N]
  matmul(ex, Matrix{m.a.data(), m.rank, w.cols}, w, {products.data(), m.rank, w.rows});
  std::vector<double> gram(static_cast<size_t>(m.rank * m.rank));
  for (int64_t k = 0; k < m.rank; ++k)
    for (int64_t l = 0; l < m.rank; ++l)
      for (int64_t i = 0; i < w.cols; ++i)
        gram[static_cast<size_t>(k * m.rank + l)] +=
            double{m.a.data()[k * w.cols + i]} * m.a.data()[l * w.cols + i];
  std::vector<float> values(static_cast<size_t>(w.cols));
  m.inverse_norm.resize(static_cast<size_t>(w.rows));
  for (int64_t row = 0; row < w.rows; ++row) {
    best_kernels().dequantize_row(w, row, values.data());
    double square = 0;
    for (const float x : values) square += double{x} * x;
    const float* b = m.b.data() + row * m.rank;
    for (int64_t k = 0; k < m.rank; ++k) {
      double part = 2.0 * products.data()[k * w.rows + row];
      for (int64_t l = 0; l < m.rank; ++l)
        part += m.scale * b[l] * gram[static_cast<size_t>(k * m.rank + l)];
      square += m.scale * b[k] * part;
    }
    if (!(square > 0)) fail("{}: row {} of the matrix and its update has no length", m.target, row);
    m.inverse_norm[static_cast<size_t>(row)] = static_cast<float>(1 / std::sqrt(square));
  }
}

}  // namespace

void measure_rows(Adapter& adapter, const Config& config, const Weights& weights) {
  if (!has_magnitudes(adapter)) return;
  const auto matrices = layer_matrices(config, weights);
  Executor ex(best_kernels(), 1);
  for (AdapterMatrix& m : adapter.matrices)
    if (m.dora()) measure_rows(ex, m, *matrices.at(m.target));
}

void attach(Adapter& adapter, double strength, const Config& config, Weights& weights) {
  auto matrices = layer_matrices(config, weights);
  std::vector<std::string> faults;
  for (const AdapterMatrix& m : adapter.matrices) {
    const auto found = matrices.find(m.target);
    if (found == matrices.end()) {
      faults.push_back(fmt::format("{}: the model has no such matrix", m.target));
      continue;
    }
    const int64_t rows = std::ssize(m.b) / m.rank, cols = std::ssize(m.a) / m.rank;
    if (rows != found->second->rows || cols != found->second->cols)
      faults.push_back(fmt::format("{}: made for a matrix [{}, {}], the model's is [{}, {}]",
                                   m.target, rows, cols, found->second->rows, found->second->cols));
  }
  if (!faults.empty()) fail("the adapter does not fit this model: {}", fmt::join(faults, "; "));
  measure_rows(adapter, config, weights);
  for (const AdapterMatrix& m : adapter.matrices)
    matrices[m.target]->low_rank.push_back(
        {.a = m.a.data(),
         .b = m.b.data(),
         .rank = m.rank,
         .scale = static_cast<float>(m.dora() ? m.scale : m.scale * strength),
         .strength = static_cast<float>(strength),
         .magnitude = m.dora() ? m.magnitude.data() : nullptr,
         .inverse_norm = m.inverse_norm.data()});
}

namespace {

void add_product(const LowRank& low, int64_t cols, int64_t row, float* values) {
  for (int64_t k = 0; k < low.rank; ++k) {
    const float factor = low.scale * low.b[row * low.rank + k];
    const float* a = low.a + k * cols;
    for (int64_t i = 0; i < cols; ++i) values[i] += factor * a[i];
  }
}

}  // namespace

void effective_row(const Linear& matrix, int64_t row, float* values) {
  best_kernels().dequantize_row(matrix, row, values);
  if (matrix.low_rank.empty()) return;
  const std::vector<float> before(values, values + matrix.cols);
  for (const LowRank& low : matrix.low_rank) {
    if (low.magnitude == nullptr) {
      add_product(low, matrix.cols, row, values);
      continue;
    }
    std::vector<float> sum = before;
    add_product(low, matrix.cols, row, sum.data());
    for (size_t i = 0; i < sum.size(); ++i)
      values[i] += low.strength * (low.gain(row) * sum[i] - before[i]);
  }
}

}  // namespace lapidary
