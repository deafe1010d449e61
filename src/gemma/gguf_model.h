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

// llama.cpp scales queries by its own choice, the -1/2 power of this: head_dim, or in models of as
// many layers as the 27B ones hidden_size / num_attention_heads.
int gguf_query_scalar(const Config& config);

// What the queries must be multiplied by to make up for it. 1 for every released model.
double gguf_query_factor(const Config& config);

// And back: the configuration that a file's keys give llama.cpp, with its defaults for those that
// are absent. Throws Error{kInput} naming the file and the key: another architecture, a key that is
// missing, of another type or out of range, what this engine cannot do. Keys of the architecture
// that are not known are left out, which is said.
Config read_gguf_config(const GgufContents& contents, const std::string& where);

// The tokens that end a generation: the file's end of text and of turn, and any <end_of_turn> of
// its vocabulary, as in llama.cpp; and the sampling that the file recommends.
GenerationConfig read_gguf_generation_config(const GgufContents& contents,
                                             const std::string& where);

}  // namespace lapidary
