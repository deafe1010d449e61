// What an Engine and a Session are made of, shared by engine.cc, session.cc and snapshot.cc.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "gemma/adapter.h"
#include "gemma/load.h"
#include "gemma/model.h"
#include "gemma/set_block.h"

namespace lapidary {

// Rows of logits at once, where so many are wanted: a row takes 1 MB for Gemma 3's vocabulary, and
// a product of 32 half as long for each as one of 8.
constexpr int64_t kLogitRows = 32;

struct Engine::Impl {
  EngineOptions options;
  std::filesystem::path folder;
  Model model;
  std::vector<Adapter> adapters;  // whose factors the model's matrices point into
  GenerationConfig generation_config;
  std::optional<Tokenizer> tokenizer;
  std::optional<SetBlockTraining> set_block;  // what the adapters say of it, or the model
  KvType kv_type = KvType::kBF16;
  float embed_scale = 1;
  int threads = 1;        // to decode
  int threads_batch = 1;  // for chunks of a prompt
  std::shared_ptr<KvBlockPool> kv_pool;

  // A step uses all threads and one state: one at a time, whoever asks.
  mutable std::mutex step_mutex;
  mutable std::unique_ptr<Executor> executor;
  mutable std::unique_ptr<State> state;

  void read_text_side();  // how generations end, the tokenizer, what it knows of set blocks
  void choose_threads();
  void attach_adapters();
  int64_t adapter_bytes() const;

  // Runs the layers on a chunk: the caches have it then, and state->h what the head reads.
  void run_layers(std::span<const Segment> segments, std::span<const Token> tokens) const;
  // Then for each of `rows` (of the chunk, ascending) the logits, in groups: fn(i, logits of
  // rows[i]).
  void read_logits(std::span<const int64_t> rows,
                   const std::function<void(size_t, std::span<const float>)>& fn) const;

  // What one item of a step gives to one chunk: tokens of it, the block after them, or both.
  struct Part {
    Session::Impl* session;
    std::span<const Token> tokens;
    bool last;  // they end with the item's last: its logits are wanted
    int label;
    int64_t offset = 0;              // of the tokens in the item
    const StepItem* item = nullptr;  // that wants more logits than those
    std::span<const Token> block = {};
    int64_t rows() const { return std::ssize(tokens) + std::ssize(block); }
  };
  // Appends to step.parts as much of an item from its token `offset` on as goes into `room` rows;
  // moves both. False when there is more of it.
  bool take_part(const StepItem& item, int64_t& offset, int64_t& room) const;
  // Shows the sessions' taps, if any has one, their rows of the chunk that follows.
  class TapScope;
  // The same for the parts of a step: extends their tokens and sets their logits. Returns the rows.
  int64_t run_parts() const;

  // What a step and its chunks put together; kept, so that decoding allocates nothing.
  struct Step {
    // A row of logits that somebody wants: of tokens[index] of a part, or of its block.
    struct Wanted {
      const Part* part;
      int64_t index;
      bool in_block;
    };
    std::vector<Part> parts;
    std::vector<Segment> segments;
    std::vector<Token> tokens;
    std::vector<int64_t> rows;   // of the chunk, ascending
    std::vector<Wanted> wanted;  // for each of them
  };
  mutable Step step;  // guarded by step_mutex
};

class Engine::Impl::TapScope {
 public:
  // `parts`, of which the chunk consists in this order, stay until the end.
  TapScope(State& state, std::span<const Part> parts);
  ~TapScope() { state_.observer = {}; }
  TapScope(const TapScope&) = delete;
  TapScope& operator=(const TapScope&) = delete;

 private:
  State& state_;
};

struct Session::Impl {
  std::shared_ptr<const Engine> engine;
  int64_t context;
  KvCache cache;
  std::vector<Token> tokens;
  std::vector<float> logits;  // [V] after the last token, or empty
  bool labelled = false;
  bool other_layer_types = false;    // than the model's
  std::map<int, CacheShare> shares;  // of a labelled session, by label
  Tap tap;

  Impl(std::shared_ptr<const Engine> e, int64_t c);
  int64_t length(int label) const;  // of its timeline
  // Appends that would not fit, or ids that do not exist, are refused before anything is done.
  void check_append(std::span<const Token> more, int label = 0,
                    std::span<const Token> block = {}) const;
  // Of a step, and what it leaves behind once the cache has the tokens.
  Segment segment(std::span<const Token> more, int label, std::span<const Token> block = {});
  void appended(std::span<const Token> more, int label);
};

// What an engine is made of, for those that look at its weights or run its layers one by one. The
// executor and the state are whoever's who holds step_mutex.
const Engine::Impl& inside(const Engine& engine);

// Throws Error{kInput} for an id that does not exist.
void check_ids(std::span<const Token> ids, int vocabulary);

}  // namespace lapidary
