// room: study
// What a fine-tuning or a quantisation changed, matrix by matrix and layer by layer. A is the model
// before, B after; they have the same shapes. docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/matrix_study.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

// Of B - A, both as their models multiply by them: decoded, adapters added.
struct MatrixDiff {
  MatrixId id;
  int64_t rows = 0;
  int64_t cols = 0;
  double norm = 0;  // Frobenius, of A's
  double size = 0;  // norm of the change, over that
  // As in WeightSpectrum, of the change; 0 where there is none.
  double stable_rank = 0;
  double effective_rank = 0;
  int64_t numerical_rank = 0;       // singular values that rounding does not explain
  std::vector<double> values = {};  // the largest of those, at most kSpectrumValues
  // Of the change with A: below 0 it shrinks A, above it makes A longer. Unset without a change.
  std::optional<double> cosine = {};
  // Mean of the squared cosines of the principal angles between the spaces of A's and of B's
  // largest kDiffDirections singular vectors, on the side of the outputs and of the inputs: 1 where
  // they are the same.
  double overlap_out = 1;
  double overlap_in = 1;
};
inline constexpr int64_t kDiffDirections = 8;

// A tensor that is not a matrix of a layer: the embedding, the head, norms.
struct TensorDiff {
  std::string name;  // "model.embed_tokens.weight"
  double size = 0;   // norm of the change, over that of A's
};

struct WeightDiff {
  std::vector<MatrixDiff> matrices = {};
  std::vector<TensorDiff> others = {};
};
// Takes about twice what weight_spectra() does for what changed, and 8 bytes for each of a matrix'
// values. Throws Error{kInput} naming the first tensors whose shapes differ.
WeightDiff diff_weights(const Engine& a, const Engine& b, const Watch& watch = {});

// After a layer, on a text.
struct LayerDiff {
  int layer = 0;
  bool sliding = false;
  double stream = 0;      // mean over the tokens of |xB - xA| / |xA|, x the residual stream
  double similarity = 0;  // linear CKA of the two streams, of a sample of positions
  // Total variation: half the sum of the differences of a query's weights, 0 to 1. Mean over the
  // queries but the first, for each head.
  std::vector<double> attention = {};
};
struct TextDiff {
  int64_t predicted = 0;  // tokens, all but the first
  double nll_a = 0;       // mean of -ln p(token | those before), nats
  double nll_b = 0;
  double kld = 0;   // mean of the sum of pA ln(pA / pB), nats
  double top1 = 0;  // share of predictions that have the same likeliest token
  std::vector<LayerDiff> layers = {};
  std::vector<double> gain = {};  // [predicted] of each token: nll by B less that by A
  double seconds = 0;
};
// Both models read the text side by side, layer by layer, so that the weights of a chunk's queries
// are all there ever is in memory. Throws as diff_weights, and Error{kInput} for a text of fewer
// than two tokens or more than the models were made for.
TextDiff diff_text(const std::shared_ptr<const Engine>& a, const std::shared_ptr<const Engine>& b,
                   std::span<const Token> tokens, const Watch& watch = {});

// Mean -ln p of the text by A with one layer of B in the place of its own, for each layer. Takes
// half of the layers, and the head, for each. Throws as diff_text.
std::vector<double> swap_layers(const std::shared_ptr<const Engine>& a,
                                const std::shared_ptr<const Engine>& b,
                                std::span<const Token> tokens, const Watch& watch = {});

}  // namespace lapidary
