// Singular values of the matrices of layers.
#include <algorithm>
#include <cmath>

#include "generate/engine_impl.h"
#include "study/matrices.h"
#include "train/spectrum.h"

namespace lapidary {

namespace {

// 1 + k / (sum of ln(x_i / x_k+1) over the k largest x), x the squares and k half of them
// (TempBalance, arXiv 2312.00359).
std::optional<double> tail_exponent(std::span<const double> values) {
  const size_t k = values.size() / 2;
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += 2 * std::log(values[i] / values[k]);
  if (!(sum > 0)) return std::nullopt;
  return 1 + static_cast<double>(k) / sum;
}

WeightSpectrum spectrum_of(const LayerMatrix& matrix) {
  const Linear& w = *matrix.weights;
  AlignedVector<float> weights = effective_values(w);
  const std::vector<double> values = singular_values({weights.data(), w.rows, w.cols});
  WeightSpectrum s{.id = matrix.id, .rows = w.rows, .cols = w.cols, .format = format_name(w)};
  for (const double value : values) s.norm += value * value;
  s.norm = std::sqrt(s.norm);
  s.stable_rank = stable_rank(values);
  // What numpy's matrix_rank takes for zero of f32, the rest has no say in.
  const double threshold = static_cast<double>(std::max(w.rows, w.cols)) * 0x1p-23 * values.front();
  const auto real = std::span(values).first(static_cast<size_t>(numerical_rank(values, threshold)));
  s.effective_rank = effective_rank(real);
  s.tail_exponent = tail_exponent(real);
  s.values.assign(real.begin(),
                  real.begin() + std::min<ptrdiff_t>(std::ssize(real), ptrdiff_t{kSpectrumValues}));
  return s;
}

}  // namespace

std::vector<WeightSpectrum> weight_spectra(const Engine& engine, const Watch& watch) {
  const std::vector<LayerMatrix> matrices = matrices_of(engine);
  std::vector<WeightSpectrum> spectra(matrices.size());
  ThreadPool pool(engine.threads());
  const int64_t count = std::ssize(matrices);
  for_each_matrix(pool, 0, count, count, watch,
                  [&](size_t i) { spectra[i] = spectrum_of(matrices[i]); });
  inside(engine).model.release_pages();
  return spectra;
}

}  // namespace lapidary
