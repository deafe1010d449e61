#include "bench/work.h"

#include <algorithm>

#include "kernels/kv_rows.h"

namespace lapidary {

namespace {

// Of a model's parts: the layers, and the matrix of the logits.
struct Sizes {
  int64_t layer_bytes = 0;       // norms and adapters included
  int64_t layer_parameters = 0;  // of matrices
  int64_t layer_quantized = 0;   // of those, parameters of quantised ones
  int64_t head_bytes = 0;
  int64_t head_parameters = 0;
  int64_t head_quantized = 0;
};

Sizes sizes_of(std::span<const ModelPart> parts) {
  Sizes s;
  for (const ModelPart& part : parts) {
    if (part.name == "attention" || part.name == "mlp" || part.name == "adapters") {
      s.layer_parameters += part.parameters;
      s.layer_quantized += part.quantized;
    }
    if (part.name == "attention" || part.name == "mlp" || part.name == "norms" ||
        part.name == "adapters")
      s.layer_bytes += part.bytes;
    // A tied embedding comes first and is the head; of one that is not, a row is read per token.
    if (part.name == "embedding" || part.name == "head") {
      s.head_bytes = part.bytes;
      s.head_parameters = part.parameters;
      s.head_quantized = part.quantized;
    }
  }
  return s;
}

}  // namespace

int64_t keys_seen(int64_t first, int64_t count, int64_t window) {
  int64_t keys = 0;
  for (int64_t position = first; position < first + count; ++position)
    keys += window > 0 ? std::min(position + 1, window) : position + 1;
  return keys;
}

Work work_of(const ModelWork& model, const SpeedTest& test) {
  const Config& c = model.config;
  const Sizes sizes = sizes_of(model.parts);
  const int64_t length = test.prompt + test.gen;  // of each session
  int64_t query_keys = 0;                         // over all layers: pairs of a query and a key
  int64_t keys_read = 0;  // over all layers: positions of the cache that are read
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    const int64_t window = c.is_sliding(layer) ? c.sliding_window : 0;
    const int64_t seen = keys_seen(test.depth, length, window);
    query_keys += seen;
    // Steps read what they see; a prompt reads what its queries see together, once.
    const int64_t all = test.depth + length;
    keys_read += test.gen > 0 ? seen : window > 0 ? std::min(all, window + length - 1) : all;
  }
  const double passes = test.gen > 0 ? static_cast<double>(test.gen) : 1;  // over the weights
  const double per_token = 1 / static_cast<double>(length);
  const double weights = static_cast<double>(sizes.layer_bytes + sizes.head_bytes) * passes /
                         static_cast<double>(test.batch);
  const int64_t position = 2 * c.num_key_value_heads * kv_row_bytes(model.kv_type, c.head_dim);
  const double cache = static_cast<double>(keys_read * position);
  const double products = 2 * static_cast<double>(sizes.layer_parameters);
  const double logits = 2 * static_cast<double>(sizes.head_parameters) * passes;
  const double attention = 4 * static_cast<double>(query_keys) * c.q_dim();
  const double rounded = 2 * static_cast<double>(sizes.layer_quantized) +
                         2 * static_cast<double>(sizes.head_quantized) * passes * per_token;
  return {.bytes = (weights + cache) * per_token,
          .flops = products + (logits + attention) * per_token,
          .rounded = model.rounds_activations ? rounded : 0};
}

}  // namespace lapidary
