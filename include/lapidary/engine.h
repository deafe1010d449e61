// room: generate
// A loaded model: immutable, shared by any number of sessions and threads. Start here.
//
//   auto engine = Engine::load("models/tiny", {});
//   Session session(engine);
//   auto ids = engine->tokenizer().encode("Once");
//   std::span<const float> logits = session.append(ids);
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/config.h"
#include "lapidary/kv_type.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"
#include "lapidary/tokenizer.h"

namespace lapidary {

class Session;

enum class Compute {
  kFast,   // whatever is fastest within the stated error: K/V in bf16
  kExact,  // the arithmetic that checks compare with: f32 everywhere, K/V too
};

// An adapter to add to what the model computes, `strength` times.
struct AdapterUse {
  std::filesystem::path path;  // as for describe_adapter (adapter.h)
  double strength = 1;
};

struct EngineOptions {
  Compute compute = Compute::kFast;
  std::optional<KvType> kv_type = {};  // unset: bf16 when fast, f32 when exact
  int threads = 0;                     // 0: one per core this process may use
  int threads_batch = 0;               // for more than one token of a session; 0: as `threads`
  // Tokens that go through the layers together, at most; 0: up to 512, as many as 40 MiB of
  // activations hold. Changes time and memory alone.
  int64_t chunk = 0;
  int64_t context = 0;       // positions to count in the memory forecast; 0: none
  bool check_memory = true;  // refuse to load what will not fit
  std::vector<AdapterUse> adapters = {};
};

// Bytes that running a model takes.
struct MemoryForecast {
  int64_t weights = 0;   // the files; mapped, so that the system may drop and reread pages
  int64_t kv_cache = 0;  // one session's, when its context is full
  // Activations, the tokenizer, the program itself, and the logits of one session. Where logits of
  // many tokens are wanted at once, up to 32 rows of them come on top.
  int64_t workspace = 0;
  int64_t adapters = 0;  // their factors as f32, and what they compute on the way
  int64_t total() const { return weights + kv_cache + workspace + adapters; }
};

// A kind of weights of a model: "embedding", "attention", "mlp", "norms" and, where there are any,
// "head", which is not the embedding, and "adapters".
struct ModelPart {
  std::string name;
  std::string format;  // "BF16", "affine 4-bit, groups of 64", "Q4_K and Q6_K"
  int64_t parameters = 0;
  int64_t bytes = 0;
  int64_t quantized = 0;  // of the parameters, those in quantised matrices
};

// The tokenizer of a model folder or a GGUF file, without the weights.
Tokenizer load_tokenizer(const std::filesystem::path& model);

// One timeline's part of a step.
struct StepItem {
  // Takes f32 [vocab], valid during the call; on the thread that asked for the step.
  using LogitsFn = std::function<void(int64_t, std::span<const float>)>;

  Session* session;
  std::span<const Token> tokens;
  int label = 0;           // of a labelled session: the timeline in it
  LogitsFn on_token = {};  // (i, the logits after tokens[i]), in order; none: the last alone
  // Tokens that may stand after these, at most kMaxBlock: they see each other, whatever their
  // order, besides all before them, and leave nothing in the session (Set Block Decoding, arXiv
  // 2509.04185).
  std::span<const Token> block = {};
  std::span<const int64_t> block_rows = {};  // of them, those whose logits are wanted; ascending
  LogitsFn on_block = {};                    // (i, the logits at block[i], of that place itself)
};

constexpr int64_t kMaxBlock = 64;

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  // Opens a model folder (HF or MLX) or a GGUF file, and adapters. Throws Error{kInput} naming file
  // and field for whatever is wrong with them, or every matrix of an adapter that the model has
  // not; Error{kResource} when the forecast does not fit the memory there is.
  static std::shared_ptr<const Engine> load(const std::filesystem::path& model,
                                            const EngineOptions& options);
  ~Engine();

  const std::filesystem::path& folder() const;  // or the GGUF file
  const Config& config() const;
  const GenerationConfig& generation_config() const;
  bool has_tokenizer() const;
  const Tokenizer& tokenizer() const;  // throws Error{kInput} when there is none

  Compute compute() const;
  KvType kv_type() const;
  int threads() const;
  std::string isa() const;            // of the kernels: "avx512"
  int64_t parameters() const;         // of the text model, a tied embedding counted once
  int64_t weight_bytes() const;       // of the text model's tensors on disk
  std::string weight_format() const;  // "BF16", "mostly Q4_K"
  std::vector<ModelPart> parts() const;
  int64_t vision_tensors() const;  // of the files, left out
  MemoryForecast forecast(int64_t context) const;
  // Of everything that decides what a cache holds: config, weights and adapters. Costs a look at
  // each file.
  uint64_t fingerprint() const;

  // Appends each item's tokens to its session and leaves the logits after its last token in
  // session->logits(). Prefill, decoding, and many sessions at once are the same call: the tokens
  // of all items go through the model together, in chunks. A session may come once; its result
  // does not depend on what it shared the step with. Throws Error{kInput}, before anything is
  // done, when a session's context would overflow or an id is not in the vocabulary, Error{kUsage}
  // for a block that is larger than a chunk, and Error{kInterrupted} between chunks, with the
  // sessions at a chunk's end.
  void step(std::span<const StepItem> items, const Watch& watch = {}) const;

  // What a text is about, as a direction [hidden_size]: the residual stream after the first `layer`
  // layers, scaled to length 1 at each token and averaged over all but the first, which is <bos>.
  // Throws Error{kUsage} for a layer that is not there, Error{kInput} for fewer than two tokens or
  // more than the model was made for.
  std::vector<float> embed(std::span<const Token> tokens, int layer) const;

  // Of a model whose tokens see those after them (use_bidirectional_attention): the final norm's
  // output, averaged over all tokens, [hidden_size]. The text is read in one piece. Throws
  // Error{kInput} for another model, no token, or more than the model was made for.
  std::vector<float> mean_hidden_state(std::span<const Token> tokens) const;

  // The logits that rows of the residual stream, [n, hidden_size], would give if no layer followed:
  // fn(i, f32 [vocab]) once for row i, from several threads and in any order; it must not throw.
  void read_stream(std::span<const float> rows,
                   const std::function<void(int64_t, std::span<const float>)>& fn) const;
  // What of the residual stream, scaled to a root mean square of 1, makes a token's logit before
  // any softcap: its row of the head times the final norm's weight, [hidden_size]; and the mean of
  // all tokens', which takes a pass over the head. Throws Error{kInput} for an id that does not
  // exist.
  std::vector<float> logit_direction(Token token) const;
  std::vector<float> mean_logit_direction() const;

 private:
  friend class Session;
  struct Impl;
  friend const Impl& inside(const Engine& engine);  // of src/generate/engine_impl.h
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary
