// What matrices lose by being quantised, in their values and in what they make of a text.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "base/clock.h"
#include "base/fail.h"
#include "gemma/adapter.h"
#include "generate/engine_impl.h"
#include "generate/layer_walk.h"
#include "quant/affine.h"
#include "study/matrices.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

constexpr int64_t kRows = 256;  // of a matrix, that are compared at once

using FillRow = std::function<void(int64_t row, float* values)>;

// The rows of the sampled positions at one point.
struct Inputs {
  std::vector<float> rows;
  int64_t cols = 0;
  Strided view() const { return {rows.data(), std::ssize(rows) / cols, cols, cols}; }
};

// Where a matrix finds what it multiplies.
const char* input_of(const std::string& matrix) {
  if (matrix == "self_attn.o_proj") return "attn.hook_z";
  if (matrix == "mlp.down_proj") return "mlp.hook_post";
  return matrix.starts_with("mlp.") ? "ln2.hook_out" : "ln1.hook_out";
}

// Keeps every stride-th position of the points that matrices read.
Tap keep_inputs(std::map<std::string, Inputs, std::less<>>& inputs, int64_t stride) {
  return [&inputs, stride](const Activation& a) {
    const auto found = inputs.find(a.point);
    if (found == inputs.end()) return;
    Inputs& in = found->second;
    if (a.position == 0) in.rows.clear();
    in.cols = a.cols;
    for (int64_t i = (stride - a.position % stride) % stride; i < a.rows; i += stride)
      in.rows.insert(in.rows.end(), a.row(i), a.row(i) + a.cols);
  };
}

double squares(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return sum;
}

// How far the matrix that `other` fills is from the one that `fill` does.
MatrixError error_of(int64_t rows, int64_t cols, const FillRow& fill, const FillRow& other,
                     const Inputs& inputs) {
  const Strided x = inputs.view();
  AlignedVector<float> whole(static_cast<size_t>(kRows * cols)), difference(whole.size());
  AlignedVector<float> outputs(static_cast<size_t>(x.rows * kRows));
  AlignedVector<float> scratch(static_cast<size_t>(gemm_scratch_floats(best_kernels())));
  const auto output_squares = [&](const AlignedVector<float>& block, int64_t count) {
    gemm(best_kernels(), x, Strided(block.data(), count, cols, cols).transposed(),
         {outputs.data(), count}, Into::kOverwrite, scratch.data());
    return squares({outputs.data(), static_cast<size_t>(x.rows * count)});
  };
  double size = 0, lost = 0, made = 0, missed = 0;
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t count = std::min(kRows, rows - first);
    const auto values = static_cast<size_t>(count * cols);
    for (int64_t i = 0; i < count; ++i) {
      fill(first + i, whole.data() + i * cols);
      other(first + i, difference.data() + i * cols);
    }
    for (size_t i = 0; i < values; ++i) difference[i] -= whole[i];
    size += squares({whole.data(), values});
    lost += squares({difference.data(), values});
    made += output_squares(whole, count);
    missed += output_squares(difference, count);
  }
  if (!std::isfinite(size + lost + made + missed)) fail("weights or activations are not finite");
  const auto share = [](double part, double all) { return all > 0 ? std::sqrt(part / all) : 0; };
  return {share(lost, size), share(missed, made)};
}

constexpr AffineFormat kFourBits{.bits = 4, .group = 64};

// A row as it comes back from 4 bits in groups of 64.
void round_row(std::span<float> row) {
  const auto cols = std::ssize(row);
  std::vector<std::byte> codes(static_cast<size_t>(kFourBits.code_bytes(cols)));
  std::vector<std::byte> scales(static_cast<size_t>(kFourBits.scale_bytes(cols)));
  std::vector<std::byte> biases(scales.size());
  affine_encode(row, kFourBits, {codes.data(), scales.data(), biases.data()});
  best_kernels().dequantize_row({.rows = 1,
                                 .cols = cols,
                                 .format = WeightFormat::kAffine,
                                 .dtype = kFourBits.dtype,
                                 .data = codes.data(),
                                 .bits = kFourBits.bits,
                                 .group = kFourBits.group,
                                 .scales = scales.data(),
                                 .biases = biases.data()},
                                0, row.data());
}

// `own` is of the model whose error is asked for, or nullptr.
MatrixErrors errors_of(const LayerMatrix& matrix, const Linear* own, const Inputs& inputs) {
  const Linear& w = *matrix.weights;
  MatrixErrors errors{.id = matrix.id};
  const FillRow fill = [&](int64_t row, float* values) { effective_row(w, row, values); };
  if (w.cols % kFourBits.group == 0)
    errors.at_4_bits = error_of(
        w.rows, w.cols, fill,
        [&](int64_t row, float* values) {
          effective_row(w, row, values);
          round_row({values, static_cast<size_t>(w.cols)});
        },
        inputs);
  if (own != nullptr)
    errors.own = error_of(
        w.rows, w.cols, fill, [&](int64_t row, float* values) { effective_row(*own, row, values); },
        inputs);
  return errors;
}

}  // namespace

QuantizationErrors quantization_errors(const std::shared_ptr<const Engine>& engine,
                                       const std::shared_ptr<const Engine>& original,
                                       std::span<const Token> tokens, int64_t sample,
                                       const Watch& watch) {
  if (tokens.empty()) fail("no token given; errors of outputs are those on a text");
  if (sample < 1) fail_usage("a sample of {} positions, expected at least 1", sample);
  if (original) check_same_shapes(*engine, *original);
  const Stopwatch clock;
  const std::shared_ptr<const Engine>& source = original ? original : engine;
  const std::vector<LayerMatrix> matrices = matrices_of(*source), own = matrices_of(*engine);
  const int64_t stride = (std::ssize(tokens) + sample - 1) / sample;
  QuantizationErrors errors{.sampled = (std::ssize(tokens) + stride - 1) / stride};
  errors.matrices.resize(matrices.size());
  std::map<std::string, Inputs, std::less<>> inputs;
  for (const LayerMatrix& m : matrices) inputs[input_of(m.id.name)];
  LayerWalk walk(source, tokens);
  ThreadPool pool(engine->threads());
  const int layers = engine->config().num_hidden_layers;
  const int64_t each = std::ssize(matrices) / layers;
  for (int layer = 0; layer < layers; ++layer) {
    walk.run(layer, keep_inputs(inputs, stride), watch);
    for_each_matrix(
        pool, layer * each, (layer + 1) * each, std::ssize(matrices), watch, [&](size_t i) {
          errors.matrices[i] = errors_of(matrices[i], original ? own[i].weights : nullptr,
                                         inputs.find(input_of(matrices[i].id.name))->second);
        });
    inside(*source).model.release_pages();
  }
  errors.seconds = clock.seconds();
  return errors;
}

}  // namespace lapidary
