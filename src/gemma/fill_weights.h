// What loading a folder and loading a GGUF file have in common.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "gemma/load.h"

namespace lapidary {

// Fills a model's weights, for which its config is known, by source.fill(name, field, rows, cols)
// and source.fill(name, norm, size), and counts them. The head is the embedding; one of its own
// comes after that.
template <class Source>
void fill_weights(Model& model, Source& source) {
  Weights& weights = model.weights;
  weights.layers.resize(static_cast<size_t>(model.config.num_hidden_layers));
  visit_tensors(model.config, weights,
                [&](const std::string& name, auto& field, int64_t rows, int64_t cols) {
                  if constexpr (std::is_same_v<decltype(field), Linear&>) {
                    source.fill(name, field, rows, cols);
                    model.parameters += rows * cols;
                  } else {
                    source.fill(name, field, rows);
                    model.parameters += rows;
                  }
                });
  weights.lm_head = weights.embed_tokens;
}

}  // namespace lapidary
