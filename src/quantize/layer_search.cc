#include "quantize/layer_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.h"
#include "base/float16.h"

namespace lapidary {

namespace {

constexpr int kExponents = 11;  // 0, 0.1, ... 1

size_t index_of(int bits) {
  return static_cast<size_t>(std::ranges::find(kAffineBits, bits) - kAffineBits.begin());
}

double squared_difference(Matrix a, Matrix b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double difference = double{a.data[i]} - double{b.data[i]};
    sum += difference * difference;
  }
  return sum;
}

double sum_of_squares(Matrix a) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += double{a.data[i]} * double{a.data[i]};
  return sum;
}

struct OwnedMatrix {
  AlignedVector<float> memory;
  Matrix view;
  OwnedMatrix(int64_t rows, int64_t cols)
      : memory(static_cast<size_t>(rows * cols)), view{memory.data(), rows, cols} {}
};

OwnedMatrix divided(Matrix x, const std::vector<float>& scales) {
  OwnedMatrix result(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t k = 0; k < x.cols; ++k)
      result.view.row(t)[k] = x.row(t)[k] / scales[static_cast<size_t>(k)];
  return result;
}

// Of columns whose inputs are divided by scales. The smallest is not nothing: what this text does
// not use another may.
std::vector<float> importance_of(const std::vector<float>& square,
                                 const std::vector<float>& scales) {
  constexpr float kLeast = 1e-3f;
  std::vector<float> importance;
  double sum = 0;
  for (size_t k = 0; k < square.size(); ++k) {
    importance.push_back(square[k] / (scales[k] * scales[k]));
    sum += importance.back();
  }
  const auto mean = static_cast<float>(sum / static_cast<double>(square.size()));
  for (float& x : importance) x = mean > 0 ? std::max(x / mean, kLeast) : 1;
  return importance;
}

// What MLX rounds before it encodes (convert_folder).
RowSource rounded_rows(const WeightMatrix& matrix, DType dtype) {
  return {matrix.rows, matrix.cols, [&matrix, dtype](int64_t row, float* values) {
            best_kernels().dequantize_row(matrix, row, values);
            for (int64_t k = 0; k < matrix.cols; ++k) values[k] = rounded_to(dtype, values[k]);
          }};
}

}  // namespace

const WeightMatrix& matrix_of(const LayerWeights& layer, size_t which) {
  const WeightMatrix* const list[] = {&layer.q_proj,   &layer.k_proj,    &layer.v_proj,
                                      &layer.o_proj,   &layer.gate_proj, &layer.up_proj,
                                      &layer.down_proj};
  return *list[which];
}

WeightMatrix& matrix_of(LayerWeights& layer, size_t which) {
  return const_cast<WeightMatrix&>(matrix_of(std::as_const(layer), which));
}

RowEncoder encoder_for(QuantizeMethod method, const AffineFormat& format,
                       const MatrixChoice& choice) {
  return method == QuantizeMethod::kRtn ? affine_encoder(format)
                                        : affine_search_encoder(format, choice.importance);
}

// Matrices that share an input, and what is known of it.
struct LayerSearch::Input {
  std::vector<size_t> which;
  InputStatistics& statistics;
  std::vector<float> square;
  std::vector<OwnedMatrix> expected;  // sample times each matrix
  std::vector<double> size;           // sum of squares of each
};

LayerSearch::LayerSearch(Executor& executor, const Config& config, const QuantizeOptions& options,
                         DType dtype, std::vector<int> measured)
    : executor_(executor),
      config_(config),
      options_(options),
      dtype_(dtype),
      measured_(std::move(measured)) {}

LayerChoice LayerSearch::run(const LayerWeights& layer, std::array<InputStatistics, 4>& inputs,
                             DType norm_type) {
  const std::vector<size_t> sharing[] = {{kQ, kK, kV}, {kO}, {kGate, kUp}, {kDown}};
  LayerChoice choice;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Input input{sharing[i], inputs[i], inputs[i].square(), {}, {}};
    for (const size_t which : input.which) {
      const Matrix x = inputs[i].sample();
      input.expected.emplace_back(x.rows, matrix_of(layer, which).rows);
      matmul(executor_, x, matrix_of(layer, which), input.expected.back().view);
      input.size.push_back(std::max(sum_of_squares(input.expected.back().view), 1e-30));
    }
    choose(layer, input, norm_type, choice);
    measure(layer, input, choice);
  }
  return choice;
}

// Sets foldings, importance and exponent of the input's matrices, and of what makes it.
void LayerSearch::choose(const LayerWeights& layer, Input& input, DType norm_type,
                         LayerChoice& choice) {
  const size_t first = input.which.front();
  const std::vector<float> magnitude = input.statistics.magnitude();
  std::vector<float> scales(magnitude.size(), 1.0f);
  double exponent = 0;
  FoldedNorm norm;
  std::vector<float> of_values;  // of the rows of v_proj, for o_proj
  double least = INFINITY;
  for (int step = 0; step < (options_.method == QuantizeMethod::kAwq ? kExponents : 1); ++step) {
    const double e = step / (kExponents - 1.0);
    std::vector<float> wanted, values;
    FoldedNorm folded;
    if (first == kO) {
      values = channel_scales(
          mean_over_queries(magnitude, config_.num_attention_heads, config_.num_key_value_heads),
          e);
      wanted =
          spread_over_queries(values, config_.num_attention_heads, config_.num_key_value_heads);
    } else {
      wanted = channel_scales(magnitude, e);
    }
    if (first == kQ || first == kGate) {
      const std::vector<float>& weight = first == kQ            ? layer.input_layernorm
                                         : config_.post_norms() ? layer.pre_feedforward_layernorm
                                                                : layer.post_attention_layernorm;
      folded = fold_norm(weight, norm_type, wanted);
      wanted = folded.scales;
    }
    const double error = trial(layer, input, wanted);
    if (!std::isfinite(error)) fail("the calibration text makes activations that are not finite");
    if (error >= least) continue;
    least = error;
    exponent = e;
    scales = std::move(wanted);
    norm = std::move(folded);
    of_values = std::move(values);
  }
  for (const size_t which : input.which) {
    MatrixChoice& matrix = choice.matrices[which];
    matrix.importance = importance_of(input.square, scales);
    matrix.exponent = exponent;
    if (exponent != 0) matrix.folding.cols = scales;
  }
  if (exponent == 0) return;
  const auto inverse = [](std::vector<float> x) {
    for (float& value : x) value = 1 / value;
    return x;
  };
  if (first == kQ) choice.attention = std::move(norm);
  if (first == kGate) choice.mlp = std::move(norm);
  if (first == kO) choice.matrices[kV].folding.rows = inverse(of_values);
  if (first == kDown) choice.matrices[kUp].folding.rows = inverse(scales);
}

// The sum of the matrices' errors with these scales, at the options' bits.
double LayerSearch::trial(const LayerWeights& layer, Input& input,
                          const std::vector<float>& scales) {
  const OwnedMatrix x = divided(input.statistics.sample(), scales);
  const AffineFormat format{options_.bits, options_.group_size, dtype_};
  MatrixChoice choice;
  choice.importance = importance_of(input.square, scales);
  double error = 0;
  for (size_t i = 0; i < input.which.size(); ++i)
    error += error_of(layer, input, i, folded_rows(matrix_of(layer, input.which[i]), {{}, scales}),
                      encoder_for(options_.method, format, choice), options_.bits, x.view);
  return error;
}

double LayerSearch::error_of(const LayerWeights& layer, Input& input, size_t i,
                             const RowSource& source, const RowEncoder& encoder, int bits,
                             Matrix x) {
  const EncodedMatrix encoded(source, encoder, {bits, options_.group_size, dtype_},
                              executor_.pool());
  const OwnedMatrix y(x.rows, matrix_of(layer, input.which[i]).rows);
  matmul(executor_, x, encoded.matrix(), y.view);
  return squared_difference(y.view, input.expected[i].view) / input.size[i];
}

void LayerSearch::measure(const LayerWeights& layer, Input& input, LayerChoice& choice) {
  const std::vector<float> ones(input.square.size(), 1.0f);
  for (size_t i = 0; i < input.which.size(); ++i) {
    const WeightMatrix& matrix = matrix_of(layer, input.which[i]);
    MatrixChoice& chosen = choice.matrices[input.which[i]];
    const std::vector<float>& cols = chosen.folding.cols;
    const OwnedMatrix x = divided(input.statistics.sample(), cols.empty() ? ones : cols);
    for (const int bits : measured_) {
      const AffineFormat format{bits, options_.group_size, dtype_};
      const size_t at = index_of(bits);
      chosen.errors.rtn[at] = error_of(layer, input, i, rounded_rows(matrix, dtype_),
                                       affine_encoder(format), bits, input.statistics.sample());
      chosen.errors.searched[at] =
          options_.method == QuantizeMethod::kRtn
              ? chosen.errors.rtn[at]
              : error_of(layer, input, i, folded_rows(matrix, {{}, cols}),
                         encoder_for(options_.method, format, chosen), bits, x.view);
    }
  }
}

MatrixErrors weight_errors(const WeightMatrix& matrix, QuantizeMethod method,
                           const MatrixChoice& choice, const AffineFormat& format,
                           const std::vector<int>& measured, ThreadPool& pool) {
  constexpr int64_t kRows = 4096;
  const int64_t step = (matrix.rows + kRows - 1) / kRows, rows = matrix.rows / step;
  const RowSource source{rows, matrix.cols, [&](int64_t row, float* values) {
                           best_kernels().dequantize_row(matrix, row * step, values);
                         }};
  const auto error = [&](const RowEncoder& encoder, int bits) {
    const EncodedMatrix encoded(source, encoder, {bits, format.group, format.dtype}, pool);
    std::vector<float> before(static_cast<size_t>(matrix.cols)), after(before.size());
    double difference = 0, size = 0;
    for (int64_t row = 0; row < rows; ++row) {
      source.fill(row, before.data());
      best_kernels().dequantize_row(encoded.matrix(), row, after.data());
      difference +=
          squared_difference({before.data(), 1, matrix.cols}, {after.data(), 1, matrix.cols});
      size += sum_of_squares({before.data(), 1, matrix.cols});
    }
    return size > 0 ? difference / size : 0;
  };
  MatrixErrors errors;
  for (const int bits : measured) {
    const AffineFormat at_bits{bits, format.group, format.dtype};
    errors.rtn[index_of(bits)] = error(affine_encoder(at_bits), bits);
    errors.searched[index_of(bits)] = error(encoder_for(method, at_bits, choice), bits);
  }
  return errors;
}

}  // namespace lapidary
