// How llama.cpp wants a Gemma described in a GGUF file.
//
// Norm weights are stored with Gemma's "1 +" added, heads as they are in HF's files, and matrices
// row by row. Some of the model is fixed by the program and not by the file: what differs there is
// refused here, or made up for where that is possible (gguf_query_factor).
#pragma once

#include <string>
#include <string_view>

#include "lapidary/config.h"

#include "io/gguf.h"

namespace lapidary {

// "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight". `name` is canonical (names.h).
std::string gguf_tensor_name(const Config& config, std::string_view name);

// "gemma", "gemma2" or "gemma3".
std::string gguf_architecture(const Config& config);

// The keys of the configuration. Throws Error{kInput} naming `where` and the field of config.json
// that llama.cpp has no key for: layers that follow no pattern, scaled positions in sliding layers,
// soft caps where the generation has none or none where it has, an untied head before Gemma 3.
GgufMetadata gguf_config(const Config& config, const std::string& where);

// What the queries must be multiplied by, since llama.cpp scales them by its own choice: the -1/2
// power of head_dim, or in models of as many layers as the 27B ones that of hidden_size /
// num_attention_heads. 1 for every released model.
double gguf_query_factor(const Config& config);

}  // namespace lapidary
