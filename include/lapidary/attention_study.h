// room: study
// What the heads of a model look at in a text. docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

// Means over the queries of a text, the first token's left out (it has no choice), unless they say
// otherwise. Weights are those of the softmax: a query's add up to 1.
struct HeadFigures {
  int layer = 0;
  int head = 0;
  double entropy = 0;         // of the weights, nats
  double effective_keys = 0;  // mean of e^entropy
  double distance = 0;        // positions back, by weight
  double sink = 0;            // weight on the first token
  double previous = 0;        // weight on the token before
  double self = 0;            // weight on the query's own token
  std::optional<double> duplicate =
      {};  // weight on earlier tokens that are the same; of queries with any
  std::optional<double> induction =
      {};  // weight on tokens that came after those; of the same queries
  // Weight on keys at distances 0, 1, 2-3, 4-7, 8-15, ...: adds up to 1.
  std::vector<double> by_distance = {};
};

struct LayerAttention {
  int layer = 0;
  bool sliding = false;
  // Mean over queries and pairs of heads of the cosine of their weights: 1 if all look at the same.
  // Unset where there is one head. Of pairs that share keys and values, and of those that do not.
  std::optional<double> similarity = {}, shared_similarity = {}, other_similarity = {};
  // Attention rollout (arXiv 2005.00928): tokens that the stream after this layer is made of, as
  // e^entropy, the mean over positions; with half of each layer's output from the position itself.
  std::optional<double> rollout_sources = {};
};

// A head's weights as a picture, queries down, keys to the right; each pixel is the largest of
// `scale` x `scale` weights.
struct PatternPicture {
  int layer = 0;
  int head = 0;
  std::vector<float> pixels;  // [size, size]
};

struct AttentionStudy {
  std::vector<Token> tokens;
  std::vector<HeadFigures> heads = {};  // layer by layer
  std::vector<LayerAttention> layers = {};
  int64_t picture_size = 0, picture_scale = 1;
  std::vector<PatternPicture> pictures = {};  // as `heads`
  // The rollout's weight of every token in the last position's stream after the last layer; of a
  // long text, of every `rollout_group` tokens from the first on, [ceil(T / rollout_group)].
  std::vector<double> rollout = {};
  int64_t rollout_group = 1;
  double seconds = 0;       // of reading the text and looking
  double look_seconds = 0;  // of them, looking
};

// All weights in a safetensors file: blocks.N.attn.hook_pattern, f32 [heads, T, T].
struct PatternSaving {
  std::filesystem::path file = {};  // empty: none
  std::vector<int> layers = {};     // empty: all
  std::vector<int> heads = {};      // empty: all; the tensors have these, in this order
};

struct AttentionOptions {
  int64_t context = 0;         // of the session; 0: what the model was made for
  int64_t picture_size = 128;  // at most, in pixels
  // The rollout takes at most layers * rollout_tokens^2 floats: of longer texts it follows groups
  // of neighbouring tokens, a power of two, in place of tokens.
  int64_t rollout_tokens = 1024;
  PatternSaving patterns = {};
};

// Reads the text once and keeps sums: memory grows with the pictures and the rollout alone, and
// with what AttentionPatterns keeps. Throws Error{kInput} for a text of fewer than two tokens,
// Error{kUsage} for a layer or head to save that is not there, Error{kResource} for a file that
// cannot be written, and as Session::append.
AttentionStudy study_attention(const std::shared_ptr<const Engine>& engine,
                               std::span<const Token> tokens, const AttentionOptions& options = {},
                               const Watch& watch = {});

// ---- experiments, on pieces of a text that are read each by itself, after <bos> where it has one

// The mean over the pieces, and half the width of its 95 % confidence interval (Student's t); of
// one piece there is none.
struct MeanOfPieces {
  double mean = 0;
  std::optional<double> margin = {};
};

// Figures of all heads of the local or of the global layers, where so many tokens may be seen.
struct AttentionAtLength {
  int64_t length = 0;
  bool sliding = false;
  MeanOfPieces entropy = {}, effective_keys = {}, distance = {}, sink = {}, previous = {},
               self = {};
  MeanOfPieces best_previous = {};                  // of the head that has the largest
  std::optional<MeanOfPieces> best_induction = {};  // the same; unset where no token came again
};

struct AttentionByLength {
  int64_t pieces = 0;
  int64_t queries = 0;  // of each piece: its last, the same at every length
  std::vector<int64_t> lengths;
  std::vector<AttentionAtLength> kinds = {};         // by length, local before global
  std::vector<std::vector<HeadFigures>> heads = {};  // by length; means over the pieces
  double seconds = 0;
};

struct LengthOptions {
  std::vector<int64_t> lengths = {128, 256, 512, 1024, 2048};  // ascending
  int64_t queries = 64;  // at most; half of the shortest length if that is less
};

// What the same queries look at when more and more of the text before them is there. The text is
// cut into pieces of the largest length. Throws Error{kUsage} for lengths that do not rise or are
// not between 4 and what the model was made for, Error{kInput} for a text shorter than the largest.
AttentionByLength attention_by_length(const std::shared_ptr<const Engine>& engine,
                                      std::span<const Token> tokens,
                                      const LengthOptions& options = {}, const Watch& watch = {});

// Layers that see as far as those of the other kind: local ones everything, global ones as far as
// the window of the local ones. Their rotations stay those that the weights were trained with.
struct ReachChange {
  int layer = -1;  // -1: all of the kind
  bool to_local = true;
  MeanOfPieces nll = {};   // mean of -ln p(token | those before), nats
  MeanOfPieces gain = {};  // that, less the model's own
};

struct ReachStudy {
  int64_t pieces = 0;
  int64_t piece_tokens = 0;
  int64_t window = 0;     // of local layers
  int64_t predicted = 0;  // of each piece: the tokens before which there is more than a window
  std::vector<bool> sliding = {};  // by layer
  MeanOfPieces nll = {};
  std::vector<ReachChange> changes = {};
  double seconds = 0;
};

struct ReachOptions {
  int64_t piece_tokens = 0;  // 0: four windows, or what the model was made for if that is less
};

// What the far end of attention is good for: the loss with each layer's reach changed, one by one,
// and of each kind all together. Throws Error{kUsage} for pieces that are no longer than the
// window, Error{kInput} for a model without local or global layers and a text shorter than a piece.
ReachStudy study_reach(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                       const ReachOptions& options = {}, const Watch& watch = {});

}  // namespace lapidary
