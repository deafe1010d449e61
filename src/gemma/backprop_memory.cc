// The memory that gradients take, told beforehand. It follows what the operations of layer.cc keep
// on the tape; a test holds it against what they did keep.
#include <algorithm>
#include <vector>

#include "gemma/adapter.h"
#include "gemma/backprop.h"

namespace lapidary {

namespace {

// Of one operation, per row of the batch.
struct Floats {
  int64_t kept = 0;   // until it is undone
  int64_t extra = 0;  // while it is undone
};

class LayerTape {
 public:
  LayerTape(const Config& c, int layer, bool dropout, const TrainedMatrices& trained)
      : prefix_("model.layers." + std::to_string(layer) + "."),
        dropout_(dropout),
        trained_(trained) {
    const int64_t d = c.hidden_size, f = c.intermediate_size, q = c.q_dim(), kv = c.kv_dim();
    norm(d, 1);
    products(c, d, Input::kRemade, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
    if (c.qk_norm()) {
      norm(q, c.num_attention_heads);
      norm(kv, c.num_key_value_heads);
    }
    operations_.push_back({q + 2 * kv, 2 * q});  // attend_within()
    products(c, q, Input::kCopied, {"self_attn.o_proj"});
    if (c.post_norms()) norm(d, 1);
    norm(d, 1);
    products(c, d, Input::kRemade, {"mlp.gate_proj", "mlp.up_proj"});
    operations_.push_back({2 * f, 0});  // gelu_mul()
    products(c, f, Input::kRemade, {"mlp.down_proj"});
    if (c.post_norms()) norm(d, 1);
  }

  const std::vector<Floats>& operations() const { return operations_; }

 private:
  void norm(int64_t cols, int64_t vectors) { operations_.push_back({cols, vectors}); }

  // What products take is a copy that they share, or each makes it again.
  enum class Input { kCopied, kRemade };

  void products(const Config& c, int64_t cols, Input input,
                std::initializer_list<const char*> names) {
    bool copied = false;
    for (const char* name : names) {
      const Trained t = trained_(prefix_ + name + ".weight");
      Floats floats;
      if (t.values || t.adapter_rank > 0) {
        if (input == Input::kRemade)
          floats.extra = cols;
        else if (!copied)
          floats.kept = cols, copied = true;
      }
      if (t.adapter_rank > 0) {
        const int64_t masked = dropout_ ? cols : 0;
        floats.kept += t.adapter_rank + masked;
        floats.extra += t.adapter_rank + masked;
        // What the matrix makes and what both do; then the gradients of the two.
        const int64_t lengths = t.dora ? 2 * adaptable_shape(c, name).first : 0;
        floats.kept += lengths;
        floats.extra += lengths;
      }
      operations_.push_back(floats);
    }
  }

  std::string prefix_;
  bool dropout_;
  const TrainedMatrices& trained_;
  std::vector<Floats> operations_;
};

// The most floats per row that a tape holds of these layers, whose way back follows at once.
int64_t peak_floats(const Config& c, int first, int last, bool dropout,
                    const TrainedMatrices& trained) {
  int64_t kept = 0, peak = 0;
  const auto add = [&](const Floats& floats) {
    kept += floats.kept;
    peak = std::max(peak, kept + floats.extra);
  };
  for (int layer = first; layer < last; ++layer) {
    const LayerTape tape(c, layer, dropout, trained);
    for (const Floats& floats : tape.operations()) add(floats);
  }
  if (last == c.num_hidden_layers) add({c.hidden_size, 1});  // the final norm
  return peak;
}

}  // namespace

int64_t tape_bytes(const Config& c, int64_t rows, int checkpoint_layers, bool dropout,
                   const TrainedMatrices& trained) {
  const int layers = c.num_hidden_layers;
  const int group = checkpoint_layers > 0 ? checkpoint_layers : layers;
  int64_t floats = 0;
  for (int last = layers; last > 0; last -= group)
    floats = std::max(floats, peak_floats(c, std::max(0, last - group), last, dropout, trained));
  return rows * floats * int64_t{sizeof(float)};
}

int64_t backprop_bytes(const Config& c, int64_t max_rows, int checkpoint_layers, bool dropout,
                       const TrainedMatrices& trained) {
  const int64_t checkpoints =
      checkpoint_layers > 0 ? (c.num_hidden_layers - 1) / checkpoint_layers : 0;
  const int64_t angles = 2 * int64_t{c.head_dim};  // sines and cosines of two kinds of layers
  return tape_bytes(c, max_rows, checkpoint_layers, dropout, trained) +
         max_rows * (checkpoints * c.hidden_size + angles) * int64_t{sizeof(float)} +
         2 * State::bytes(c, max_rows) + cross_entropy_bytes(c, max_rows);
}

}  // namespace lapidary
