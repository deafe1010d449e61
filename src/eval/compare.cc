#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "eval/estimate.h"
#include "eval/vocabularies.h"
#include "eval/windows.h"
#include "generate/divergence.h"
#include "generate/logit_rows.h"
#include "text/utf8.h"

namespace lapidary {

namespace {

constexpr int64_t kKeptBytes = int64_t{64} << 20;  // logits of A that wait for B's

// What is kept of each token.
struct Samples {
  std::vector<double> kld, agrees, nll_a, nll_b, nll_gain, dp_top, dp;

  void add(std::span<const float> a, std::span<const float> b, double log_sum_a, double log_sum_b,
           Token next, const RowComparison& row) {
    const auto top = static_cast<size_t>(row.top_a), id = static_cast<size_t>(next);
    kld.push_back(row.kld);
    agrees.push_back(row.top_a == row.top_b ? 1 : 0);
    nll_a.push_back(log_sum_a - a[id]);
    nll_b.push_back(log_sum_b - b[id]);
    nll_gain.push_back(nll_b.back() - nll_a.back());
    dp_top.push_back(std::abs(std::exp(b[top] - log_sum_b) - std::exp(a[top] - log_sum_a)));
    dp.push_back(std::exp(-nll_b.back()) - std::exp(-nll_a.back()));
  }
};

void summarize(const Samples& samples, Comparison& result) {
  result.predicted = std::ssize(samples.kld);
  result.kld = estimate(samples.kld);
  std::vector<double> sorted = samples.kld;
  std::sort(sorted.begin(), sorted.end());
  result.kld_median = quantile(sorted, 0.5);
  result.kld_p90 = quantile(sorted, 0.9);
  result.kld_p99 = quantile(sorted, 0.99);
  result.kld_max = sorted.back();
  result.top1 = estimate(samples.agrees);
  result.nll_a = estimate(samples.nll_a);
  result.nll_b = estimate(samples.nll_b);
  result.ppl_a = exponential(result.nll_a);
  result.ppl_b = exponential(result.nll_b);
  result.ppl_ratio = exponential(estimate(samples.nll_gain));
  result.dp_top = mean(samples.dp_top);
  result.dp_mean = mean(samples.dp);
  double squares = 0;
  for (const double dp : samples.dp) squares += dp * dp;
  result.dp_rms = std::sqrt(squares / static_cast<double>(samples.dp.size()));
}

// Both models on one text, a few tokens each in turn.
class Comparer {
 public:
  Comparer(std::shared_ptr<const Engine> a, std::shared_ptr<const Engine> b, const EvalText& text)
      : a_(std::move(a)),
        b_(std::move(b)),
        text_(text),
        vocab_(a_->config().vocab_size),
        pool_(std::max(a_->threads(), b_->threads())) {
    rows_ = std::clamp<int64_t>(kKeptBytes / (vocab_ * int64_t{sizeof(float)}), 1, 512);
    kept_.resize(static_cast<size_t>(rows_ * vocab_));
  }

  void run(const EvalWindow& window, const Watch& watch) {
    WindowReader a(a_, text_, window), b(b_, text_, window);
    while (!a.done()) {
      int64_t first = -1;
      a.read(
          rows_,
          [&](int64_t i, std::span<const float> logits) {
            if (first < 0) first = i;
            std::copy(logits.begin(), logits.end(), kept_.begin() + (i - first) * vocab_);
          },
          watch);
      b.read(
          rows_, [&](int64_t i, std::span<const float> logits) { add(i, first, logits); }, watch);
      watch.report(first + rows_, std::ssize(text_.tokens));
    }
  }

  const Samples& samples() const { return samples_; }
  float difference() const { return difference_; }

 private:
  void add(int64_t i, int64_t first, std::span<const float> logits_b) {
    const std::span<const float> logits_a =
        std::span(kept_).subspan(static_cast<size_t>((i - first) * vocab_), logits_b.size());
    const double log_sum_a = log_sum_exp(logits_a), log_sum_b = log_sum_exp(logits_b);
    for (const auto& [engine, sum] : {std::pair{&a_, log_sum_a}, {&b_, log_sum_b}})
      if (!std::isfinite(sum))
        fail("{}: the logits that predict token {} of the text are not finite",
             (*engine)->folder().string(), i);
    const RowComparison row = compare_rows(logits_a, logits_b, pool_);
    if (!std::isfinite(row.kld))
      fail("the divergence at token {} of the text is not finite: a logit is infinite", i);
    samples_.add(logits_a, logits_b, log_sum_a, log_sum_b, text_.tokens[static_cast<size_t>(i)],
                 row);
    difference_ = std::max(difference_, row.difference);
  }

  std::shared_ptr<const Engine> a_, b_;
  const EvalText& text_;
  int64_t vocab_;
  int64_t rows_;             // of A's logits that are kept
  std::vector<float> kept_;  // [rows_, V]
  ThreadPool pool_;
  Samples samples_;
  float difference_ = 0;
};

}  // namespace

void check_same_vocabulary(const Engine& a, const Engine& b) {
  const std::string what =
      fmt::format("{} and {}: the vocabularies differ", a.folder().string(), b.folder().string());
  if (a.config().vocab_size != b.config().vocab_size)
    fail("{}: {} ids and {} ids", what, a.config().vocab_size, b.config().vocab_size);
  if (!a.has_tokenizer() || !b.has_tokenizer()) return;
  const Tokenizer &first = a.tokenizer(), &second = b.tokenizer();
  if (first.size() != second.size())
    fail("{}: {} pieces and {} pieces", what, first.size(), second.size());
  for (Token id = 0; id < first.size(); ++id)
    if (first.piece(id) != second.piece(id))
      fail("{}: id {} is {} and {}", what, id, text::shown(first.piece(id)),
           text::shown(second.piece(id)));
}

Comparison compare(const std::shared_ptr<const Engine>& a, const std::shared_ptr<const Engine>& b,
                   const EvalText& text, const WindowOptions& options, const Watch& watch) {
  check_same_vocabulary(*a, *b);
  const std::vector<EvalWindow> windows = windows_of(text, a->config().vocab_size, options);
  const Stopwatch clock;
  Comparison result{.tokens = std::ssize(text.tokens)};
  Comparer comparer(a, b, text);
  try {
    for (const EvalWindow& window : windows) comparer.run(window, watch);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInterrupted || comparer.samples().kld.empty()) throw;
    result.interrupted = true;
  }
  summarize(comparer.samples(), result);
  result.logit_difference = comparer.difference();
  result.seconds = clock.seconds();
  return result;
}

}  // namespace lapidary
