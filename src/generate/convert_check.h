// Whether a converted model is the one it was made from.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/convert.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

#include "gemma/load.h"
#include "generate/row_stream.h"

namespace lapidary {

// The rows of a matrix as floats; the matrix must outlive it.
RowSource rows_of(const WeightMatrix& matrix);

// A tensor before and after, with what its encoding allows (RowEncoder).
struct TensorPair {
  std::string name;
  RowSource before;
  RowSource after;
  int64_t block_values = 1;
  double error_share = 0;
  bool matrix = true;  // of the text model: its errors reach the logits
};

// Compares all weights and sets the weight_* fields and logit_error_limit. `after_piece` is called
// with the values compared since the last call. Throws Error{kInput} naming `where` and the tensor
// whose error is larger than its encoding makes it, or not a number, or is not what rounding makes.
void check_weights(std::span<const TensorPair> tensors, const std::string& where, ThreadPool& pool,
                   ConversionCheck& check, const std::function<void(int64_t)>& after_piece);

// The same tokens through both models in f32, a layer's weights in memory at a time; sets the other
// fields. Throws Error{kInput} naming `where` when the logits differ by more than
// check.logit_error_limit, which check_weights has set.
void check_logits(const Model& before, const Model& after, std::span<const Token> tokens,
                  const std::string& where, int threads, ConversionCheck& check,
                  const Watch& watch);
// What check_logits holds besides pages of the files.
int64_t check_logits_bytes(const Config& config);

// <bos> and a few dozen tokens: of a sentence where the folder has a tokenizer, else drawn from the
// vocabulary, the same each time.
std::vector<Token> check_tokens(const Model& model, const std::filesystem::path& folder);

}  // namespace lapidary
