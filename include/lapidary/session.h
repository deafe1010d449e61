// room: generate
// One timeline: the tokens so far and their keys and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/tap.h"
#include "lapidary/token.h"

namespace lapidary {

// Not for use by two threads at once; different sessions of one engine may be.
class Session {
 public:
  // `context` is the most positions it may hold; 0: what the model was made for. Throws
  // Error{kResource} when a cache of that length would not fit the memory there is.
  explicit Session(std::shared_ptr<const Engine> engine, int64_t context = 0);
  // Several timelines in one cache. A token sees those of its own label only (StepItem), whatever
  // lies between them, and has its place among them; otherwise nothing differs from a session for
  // each, `context` included. Such a session is for experiments: it attends slowly, keeps all
  // positions of sliding layers too, and can be neither trimmed nor written to a file.
  static Session labelled(std::shared_ptr<const Engine> engine, int64_t context = 0);
  // Every layer sees as far as one of `types` [layers] would; otherwise, its rotation included, it
  // is the model's. For experiments: such a session can be neither trimmed nor written to a file.
  static Session with_layer_types(std::shared_ptr<const Engine> engine,
                                  std::vector<LayerType> types, int64_t context = 0);
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  const Engine& engine() const;
  int64_t context() const;
  int64_t length() const;                 // positions filled
  std::span<const Token> tokens() const;  // [length]
  int64_t kv_bytes() const;               // held by the cache, blocks shared with forks included
  // The memory of a layer's keys and values; valid until the next change.
  std::vector<std::span<const std::byte>> kv_blocks(int layer) const;

  // Appends tokens and returns the logits after the last one, f32 [vocab], valid until the next
  // change. Throws as Engine::step.
  std::span<const float> append(std::span<const Token> tokens, const Watch& watch = {});
  // The logits after the last token; empty before the first and after trim().
  std::span<const float> logits() const;

  // Appends tokens and hands over the logits after each: fn(index of the token, f32 [vocab]).
  void score(std::span<const Token> tokens,
             const std::function<void(int64_t, std::span<const float>)>& fn,
             const Watch& watch = {}, int label = 0);

  // Shows `tap` what the model computes of this session's tokens from now on, and takes what it
  // writes there (tap.h); an empty one ends that. It is called while a step goes on: it must not
  // call the engine, and what it throws leaves the session and those it shares the step with
  // useless. Keys and values keep what came of its changes. Forks begin without it.
  void set_tap(Tap tap);

  // Makes the timeline equal `tokens`: keeps the common beginning, drops the rest of what it has,
  // appends the rest of what is wanted. Returns how many tokens had to be computed. logits() is
  // valid afterwards (the last token is always computed again when nothing else is).
  int64_t sync(std::span<const Token> tokens, const Watch& watch = {});

  // Drops all but the first `length` tokens. What a sliding layer has already let go of is computed
  // again from the tokens; returns how many positions that took, 0 when none.
  int64_t trim(int64_t length, const Watch& watch = {});

  // A second timeline with the same past. Costs no memory until either goes on.
  Session fork() const;

  // Writes tokens, keys and values as safetensors, with the engine's fingerprint. Atomic.
  void snapshot(const std::filesystem::path& file) const;
  // Goes on where a snapshot left off, bit for bit. Throws Error{kInput} when the file is damaged
  // or belongs to another model or type of cache. The logits are not part of it.
  static Session restore(std::shared_ptr<const Engine> engine, const std::filesystem::path& file,
                         int64_t context = 0);

 private:
  friend class Engine;
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lapidary
