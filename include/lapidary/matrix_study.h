// room: study
// The matrices of a model's layers: what they are, what they would lose by being quantised, and how
// strongly a text pulls at each. docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

struct MatrixId {
  int layer = 0;
  std::string name;  // "self_attn.q_proj"
};

// Of the matrix as the model multiplies by it: decoded, adapters added.
struct WeightSpectrum {
  MatrixId id;
  int64_t rows = 0;
  int64_t cols = 0;
  std::string format;         // as it is stored: "affine 4-bit, groups of 64"
  double norm = 0;            // Frobenius
  double stable_rank = 0;     // sum of the squared singular values over the largest squared
  double effective_rank = 0;  // e to the entropy of the singular values, as shares of their sum
  // Hill's estimate of the exponent of the density's tail of the squared singular values, from the
  // upper half of them; unset where these are all equal.
  std::optional<double> tail_exponent = {};
  std::vector<double> values = {};  // the largest singular values, at most kSpectrumValues
};
inline constexpr size_t kSpectrumValues = 64;

// Layer by layer. For a matrix of n by m > n each takes about m n^2 / 2 + 4/3 n^3 multiply-adds in
// double by one thread, and 4 n m bytes.
std::vector<WeightSpectrum> weight_spectra(const Engine& engine, const Watch& watch = {});

struct MatrixGradient {
  MatrixId id;
  double norm = 0;      // Frobenius, of the gradient of the mean loss by the matrix as it is stored
  double relative = 0;  // that, over the norm of the matrix
};
struct GradientFlow {
  double nll = 0;             // the mean loss, f32 throughout, nats
  int checkpoint_layers = 0;  // so many layers' records were kept at a time; 0: all
  std::vector<MatrixGradient> matrices = {};
  double seconds = 0;
};
// One pass back through a text, as training takes it: f32, quantised matrices decoded. What layers
// leave for their way back is kept for as many as the memory has room for. Throws Error{kResource}
// where there is too little for one, Error{kInput} for a text of fewer than two tokens.
GradientFlow gradient_flow(const Engine& engine, std::span<const Token> tokens,
                           const Watch& watch = {});

// By how much a matrix is off.
struct MatrixError {
  double weights = 0;  // Frobenius norm of the difference, over that of the matrix
  double outputs = 0;  // the same of what they make of the text's activations
};
struct MatrixErrors {
  MatrixId id;
  // Rounded to 4 bits in groups of 64, as convert does; unset where the columns are no such groups.
  std::optional<MatrixError> at_4_bits = {};
  std::optional<MatrixError> own = {};  // of this model's matrix, from the original's
};
struct QuantizationErrors {
  int64_t sampled = 0;  // positions whose activations were taken, evenly spread
  std::vector<MatrixErrors> matrices = {};
  double seconds = 0;
};
// Of the original's matrices and activations, where there is one, else of the model's own. Throws
// Error{kInput} naming the first tensors whose shapes differ.
QuantizationErrors quantization_errors(const std::shared_ptr<const Engine>& engine,
                                       const std::shared_ptr<const Engine>& original,
                                       std::span<const Token> tokens, int64_t sample = 256,
                                       const Watch& watch = {});

}  // namespace lapidary
