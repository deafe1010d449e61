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

// Of a mode that guesses; none for another.
std::unique_ptr<Drafter> make_drafter(const DecodeOptions& options, int64_t context,
                                      int usable_vocab);

}  // namespace lapidary
