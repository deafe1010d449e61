// What changes of activations do to a text.
#include <algorithm>
#include <cmath>

#include "lapidary/activations.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "base/thread_pool.h"
#include "generate/divergence.h"
#include "generate/logit_rows.h"

namespace lapidary {

namespace {

constexpr int64_t kKeptBytes = int64_t{64} << 20;  // logits that wait for those with the tap

}  // namespace

Effect effect_of(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                 const Tap& tap, int64_t context, const Watch& watch) {
  if (tokens.size() < 2)
    fail("{} token{} given; a prediction needs at least two, one to predict from another",
         tokens.size(), tokens.size() == 1 ? "" : "s");
  const auto vocabulary = static_cast<size_t>(engine->config().vocab_size);
  const size_t rows =
      std::clamp<size_t>(kKeptBytes / (vocabulary * sizeof(float)), 1, tokens.size() - 1);
  std::vector<float> kept(rows * vocabulary);
  ThreadPool pool(engine->threads());
  Session before(engine, context), after(engine, context);
  after.set_tap(tap);
  Effect effect;
  std::vector<double> nll_before, nll_after, same;
  for (size_t done = 0; done + 1 < tokens.size(); done += rows) {
    const auto part = tokens.subspan(done, std::min(rows, tokens.size() - 1 - done));
    const Stopwatch plain_clock;
    before.score(part, [&](int64_t i, std::span<const float> logits) {
      std::ranges::copy(logits, kept.begin() + i * std::ssize(logits));
    });
    effect.seconds_before += plain_clock.seconds();
    const Stopwatch changed_clock;
    double comparing = 0;  // which is no work of the tap's
    after.score(part, [&](int64_t i, std::span<const float> logits) {
      const Stopwatch comparison;
      const auto at = static_cast<size_t>(i);
      const std::span<const float> plain(kept.data() + at * vocabulary, vocabulary);
      const RowComparison row = compare_rows(plain, logits, pool);
      const double sum_before = log_sum_exp(plain), sum_after = log_sum_exp(logits);
      if (!std::isfinite(sum_before) || !std::isfinite(sum_after) || !std::isfinite(row.kld))
        fail("the logits after token {} of the text are not finite", done + at);
      const auto next = static_cast<size_t>(tokens[done + at + 1]);
      nll_before.push_back(sum_before - plain[next]);
      nll_after.push_back(sum_after - logits[next]);
      same.push_back(row.top_a == row.top_b ? 1 : 0);
      effect.kld_by_token.push_back(row.kld);
      effect.gain_by_token.push_back(nll_after.back() - nll_before.back());
      comparing += comparison.seconds();
    });
    effect.seconds_after += changed_clock.seconds() - comparing;
    watch.report(static_cast<int64_t>(done + part.size()), std::ssize(tokens) - 1);
    watch.throw_if_stopped();
  }
  effect.predicted = std::ssize(nll_before);
  effect.nll_before = mean(nll_before);
  effect.nll_after = mean(nll_after);
  effect.kld = mean(effect.kld_by_token);
  effect.top1 = mean(same);
  return effect;
}

}  // namespace lapidary
