#include "eval/windows.h"

#include <algorithm>

#include "base/fail.h"
#include "eval/assets.h"

namespace lapidary {

EvalText encode_text(const Engine& engine, std::string_view text) {
  return {engine.tokenizer().encode(text), engine.tokenizer().bos()};
}

std::string_view built_in_text() {
  return assets::kText;
}

int64_t stride_of(const WindowOptions& options) {
  return options.stride == 0 ? std::max<int64_t>(1, options.context / 2) : options.stride;
}

std::vector<EvalWindow> windows_of(const EvalText& text, int vocab_size,
                                   const WindowOptions& options) {
  // What a window holds besides its <bos>, and how much of that is there to predict from: without
  // a <bos> one token must be.
  const int64_t given = text.bos ? 0 : 1, room = options.context - (text.bos ? 1 : 0);
  if (options.context < 2)
    fail_usage("context: {} given, expected 2 positions or more", options.context);
  const int64_t stride = stride_of(options);
  if (stride < 1 || stride > room - given)
    fail_usage("stride: {} given, expected 1 to {} for windows of {} positions", stride,
               room - given, options.context);
  const int64_t count = std::ssize(text.tokens);
  if (count == 0) fail("nothing to predict: the text is empty");
  if (count == given) fail("nothing to predict: one token given, expected two or more");
  for (const Token id : text.tokens)  // the last is never read, so no session looks at it
    if (id < 0 || id >= vocab_size)
      fail("token id {} is not in the vocabulary of {}", id, vocab_size);
  std::vector<EvalWindow> windows;
  for (int64_t begin = 0, done = given; done < count; begin += stride) {
    const int64_t end = std::min(count, begin + room);
    windows.push_back({begin, done, end});
    done = end;
  }
  return windows;
}

WindowReader::WindowReader(std::shared_ptr<const Engine> engine, const EvalText& text,
                           const EvalWindow& window)
    : text_(text),
      window_(window),
      next_(window.predicted),
      session_(std::move(engine), window.end - window.begin + 1) {}

void WindowReader::read(int64_t count,
                        const std::function<void(int64_t, std::span<const float>)>& fn,
                        const Watch& watch) {
  const auto tokens = [&](int64_t first, int64_t last) {
    return std::span(text_.tokens)
        .subspan(static_cast<size_t>(first), static_cast<size_t>(last - first));
  };
  const int64_t last = std::min(window_.end, next_ + count);
  if (session_.length() == 0 && next_ < last) {  // what is only read, and predicts the first
    std::vector<Token> before;
    if (text_.bos) before.push_back(*text_.bos);
    const auto context = tokens(window_.begin, next_);
    before.insert(before.end(), context.begin(), context.end());
    fn(next_, session_.append(before, Watch{{}, watch.stop}));
    ++next_;
  }
  if (next_ == last) return;
  const int64_t first = next_;
  session_.score(
      tokens(first - 1, last - 1),
      [&](int64_t i, std::span<const float> logits) { fn(first + i, logits); },
      Watch{{}, watch.stop});
  next_ = last;
}

}  // namespace lapidary
