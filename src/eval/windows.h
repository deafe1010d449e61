// A text in windows: which tokens a window holds, which of them it predicts, and the logits it
// predicts them with.
#pragma once

#include <functional>
#include <vector>

#include "lapidary/eval.h"
#include "lapidary/session.h"

namespace lapidary {

// Tokens [begin, end) of the text, of which [predicted, end) are predicted.
struct EvalWindow {
  int64_t begin = 0;
  int64_t predicted = 0;
  int64_t end = 0;
};

// Throws Error{kUsage} naming the option, Error{kInput} when there is nothing to predict.
// An id that is not in the vocabulary is an error too.
std::vector<EvalWindow> windows_of(const EvalText& text, int vocab_size,
                                   const WindowOptions& options);

// Reads a window, a few predictions at a time.
class WindowReader {
 public:
  WindowReader(std::shared_ptr<const Engine> engine, const EvalText& text,
               const EvalWindow& window);

  // fn(index of the token in the text, logits that predict it) for the next `count` at most.
  void read(int64_t count, const std::function<void(int64_t, std::span<const float>)>& fn,
            const Watch& watch);
  bool done() const { return next_ == window_.end; }
  int64_t evaluated() const { return session_.length(); }  // tokens that went through the model

 private:
  const EvalText& text_;
  EvalWindow window_;
  int64_t next_;
  Session session_;
};

}  // namespace lapidary
