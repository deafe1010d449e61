// Guesses at what comes next, for the model to check many of them in one pass.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/decoding.h"

namespace lapidary {

class Drafter {
 public:
  virtual ~Drafter() = default;
  // At most `most` tokens that may follow `timeline`; valid until the next call.
  virtual std::span<const Token> propose(std::span<const Token> timeline, int64_t most) = 0;
  // Gives the pass that checks what was proposed something to read besides, of which the next
  // proposal comes: for at most `most` tokens after those of the pass.
  virtual void join(StepItem& /*pass*/, int64_t /*most*/) {}
};

// What followed the latest earlier place where the last n tokens stood, for the largest n up to
// `longest` that there is one for. A pass over the timeline for each n.
class NgramDrafter : public Drafter {
 public:
  explicit NgramDrafter(int64_t longest) : longest_(longest) {}
  std::span<const Token> propose(std::span<const Token> timeline, int64_t most) override;

 private:
  int64_t longest_;
};

// What a smaller model finds likeliest. It has nothing to say after a token that it has no row for.
class ModelDrafter : public Drafter {
 public:
  // `context` as the checking session's, which draws ids below `usable_vocab`: no other is guessed.
  ModelDrafter(std::shared_ptr<const Engine> engine, int64_t context, int usable_vocab);
  std::span<const Token> propose(std::span<const Token> timeline, int64_t most) override;

 private:
  Session session_;
  int usable_;
  std::vector<Token> proposed_;
};

// What the model itself finds likeliest for a block of masks, which it reads in the pass that
// checks the guesses of the last one (arXiv 2509.04185, with nothing taken for granted). The first
// place of a block is predicted by what is before it, so that a block of n makes n - 1 guesses.
class BlockDrafter : public Drafter {
 public:
  BlockDrafter(const Session& session, const SetBlockOptions& options,
               const SamplerOptions& sampling, int usable_vocab);
  std::span<const Token> propose(std::span<const Token> timeline, int64_t most) override;
  void join(StepItem& pass, int64_t most) override;

 private:
  const Session& session_;
  SamplerOptions sampling_;
  int usable_;
  std::vector<Token> masks_;     // of the largest block
  std::vector<int64_t> rows_;    // its places but the first
  std::vector<Token> timeline_;  // that guesses come after
  std::vector<Token> guesses_;   // for the places from `first_` on
  int64_t first_ = 0;
  std::vector<Token> block_;  // what the last pass said of the places after `start_`
  int64_t block_size_;        // of it, where there was room
  int64_t start_;             // its first place
  int64_t last_length_;       // of the session before that pass
};

// Of a mode that guesses; none for another. The session outlives it.
std::unique_ptr<Drafter> make_drafter(const DecodeOptions& options, const Session& session,
                                      const SamplerOptions& sampling, int usable_vocab);

}  // namespace lapidary
