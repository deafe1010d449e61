#include <cmath>

#include "base/clock.h"
#include "base/fail.h"
#include "eval/estimate.h"
#include "eval/windows.h"
#include "generate/logit_rows.h"

namespace lapidary {

double Perplexity::tokens_per_second() const {
  return seconds > 0 ? static_cast<double>(evaluated) / seconds : 0;
}

Perplexity perplexity(const std::shared_ptr<const Engine>& engine, const EvalText& text,
                      const WindowOptions& options, const Watch& watch) {
  const std::vector<EvalWindow> windows = windows_of(text, engine->config().vocab_size, options);
  const Stopwatch clock;
  Perplexity result{.tokens = std::ssize(text.tokens)};
  std::vector<double> nll;
  nll.reserve(text.tokens.size());
  const auto predict = [&](int64_t i, std::span<const float> logits) {
    const auto id = static_cast<size_t>(text.tokens[static_cast<size_t>(i)]);
    nll.push_back(log_sum_exp(logits) - logits[id]);
    if (!std::isfinite(nll.back()))
      fail("{}: the logits that predict token {} of the text are not finite",
           engine->folder().string(), i);
    watch.report(i + 1, result.tokens);
  };
  for (const EvalWindow& window : windows) {
    WindowReader reader(engine, text, window);
    try {
      reader.read(result.tokens, predict, watch);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kInterrupted || nll.empty()) throw;
      result.interrupted = true;
    }
    result.evaluated += reader.evaluated();
    if (result.interrupted) break;
    ++result.windows;
  }
  result.seconds = clock.seconds();
  result.predicted = std::ssize(nll);
  result.nll = estimate(nll);
  result.ppl = exponential(result.nll);
  return result;
}

}  // namespace lapidary
