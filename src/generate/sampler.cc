#include "lapidary/sampler.h"

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace lapidary {

namespace {

// A token that may still be drawn.
struct Candidate {
  float logit;
  Token id;
  float weight;  // probability up to a factor that all share
};

// The order of likelihood; the lower id first among equals, so that it is a total one.
bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void check_finite(std::span<const float> logits) {
  int32_t largest = 0;  // NaN and infinity are the largest magnitudes, seen as integers
  for (const float x : logits) largest = std::max(largest, std::bit_cast<int32_t>(x) & 0x7fffffff);
  if (largest >= 0x7f800000) fail("logits are not finite");
}

// The largest of a block, by lanes: compilers make vector code of it on any CPU.
constexpr size_t kBlock = 64;
float block_max(const float* x) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::copy_n(x, kLanes, lanes);
  for (size_t i = kLanes; i < kBlock; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  return *std::max_element(lanes, lanes + kLanes);
}

// fn(id, logit) for logits greater than what fn last returned, in the order of ids.
template <class Fn>
void for_each_above(std::span<const float> logits, Fn&& fn) {
  float bar = -std::numeric_limits<float>::infinity();
  for (size_t block = 0; block < logits.size(); block += kBlock) {
    const size_t end = std::min(block + kBlock, logits.size());
    if (end == block + kBlock && block_max(&logits[block]) <= bar) continue;
    for (size_t i = block; i < end; ++i)
      if (logits[i] > bar) bar = fn(static_cast<Token>(i), logits[i]);
  }
}

Token most_likely(std::span<const float> logits) {
  Token best = 0;
  for_each_above(logits, [&](Token id, float logit) {
    best = id;
    return logit;
  });
  return best;
}

bool has_penalties(const SamplerOptions& o) {
  return o.repetition_penalty != 1 || o.frequency_penalty != 0 || o.presence_penalty != 0;
}

// What bias and penalties make of one logit. Kept finite whatever the options say.
void adjust(float& logit, double value) {
  logit = static_cast<float>(std::clamp(value, -1e30, 1e30));
}

void apply_penalties(const SamplerOptions& o, std::span<const Token> timeline,
                     std::vector<float>& logits) {
  const auto window = o.penalty_window < 0
                          ? timeline.size()
                          : std::min(timeline.size(), static_cast<size_t>(o.penalty_window));
  std::vector<Token> recent(timeline.end() - static_cast<std::ptrdiff_t>(window), timeline.end());
  std::sort(recent.begin(), recent.end());
  for (size_t i = 0, next = 0; i < recent.size(); i = next) {
    while (next < recent.size() && recent[next] == recent[i]) ++next;
    if (static_cast<size_t>(recent[i]) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(recent[i])];
    const double value = logit > 0 ? logit / o.repetition_penalty : logit * o.repetition_penalty;
    adjust(logit, value - static_cast<double>(next - i) * o.frequency_penalty - o.presence_penalty);
  }
}

// Every token, in the order of ids.
std::vector<Candidate> all_candidates(std::span<const float> logits) {
  std::vector<Candidate> all(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) all[i] = {logits[i], static_cast<Token>(i), 0};
  return all;
}

// The k most likely tokens, most likely first, in one pass: a buffer of twice that many is cut to
// the best k whenever it is full, and from then on only what beats the last of them goes in.
std::vector<Candidate> top_candidates(std::span<const float> logits, size_t k) {
  std::vector<Candidate> best;
  const size_t room = std::max<size_t>(2 * k, 256);
  best.reserve(room);
  const auto cut = [&] {
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(k - 1), best.end(),
                     more_likely);
    best.resize(k);
  };
  float bar = -std::numeric_limits<float>::infinity();  // ids ascend: an equal logit comes too late
  for_each_above(logits, [&](Token id, float logit) {
    best.push_back({logit, id, 0});
    if (best.size() == room) {
      cut();
      bar = best[k - 1].logit;
    }
    return bar;
  });
  if (best.size() > k) cut();
  std::sort(best.begin(), best.end(), more_likely);
  return best;
}

// Sets the weights, the most likely token's being 1, and returns their sum.
double weigh(std::vector<Candidate>& candidates, double temperature) {
  float highest = candidates[0].logit;
  for (const Candidate& c : candidates) highest = std::max(highest, c.logit);
  double sum = 0;
  for (Candidate& c : candidates) {
    const double distance = (static_cast<double>(c.logit) - highest) / temperature;
    c.weight = std::exp(static_cast<float>(distance));
    sum += c.weight;
  }
  return sum;
}

// Keeps the most likely until their share of `sum` reaches p, in the order of likelihood. Sorts no
// more than it keeps, about: the tail of a vocabulary stays unsorted.
void keep_top_p(std::vector<Candidate>& candidates, double p, double sum) {
  double reached = 0;
  size_t sorted = 0;
  for (size_t kept = 0; kept < candidates.size(); ++kept) {
    if (kept == sorted) {
      const auto first = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
      sorted = std::min(candidates.size(), std::max<size_t>(256, 4 * sorted));
      const auto last = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (last != candidates.end()) std::nth_element(first, last, candidates.end(), more_likely);
      std::sort(first, last, more_likely);
    }
    reached += candidates[kept].weight;
    if (reached >= p * sum) {
      candidates.resize(kept + 1);
      return;
    }
  }
}

Token draw(const std::vector<Candidate>& candidates, double uniform) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  double left = uniform * sum;
  for (const Candidate& c : candidates) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates[0].id;  // the sum rounded the other way
}

}  // namespace

void check_sampler_options(const SamplerOptions& o, int vocab_size) {
  const auto refuse = [](std::string_view name, auto value, std::string_view expected) {
    fail_usage("{}: {} given, expected {}", name, value, expected);
  };
  const auto finite = [&](std::string_view name, double value) {
    if (!std::isfinite(value)) refuse(name, value, "a finite number");
  };
  if (!(o.temperature >= 0) || std::isinf(o.temperature))
    refuse("temp", o.temperature, "0 (greedy) or more");
  if (o.top_k < 0) refuse("top-k", o.top_k, "0 (all) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top-p", o.top_p, "more than 0 and at most 1 (all)");
  if (!(o.min_p >= 0 && o.min_p < 1)) refuse("min-p", o.min_p, "0 (all) or more, below 1");
  if (!(o.repetition_penalty > 0) || std::isinf(o.repetition_penalty))
    refuse("repeat-penalty", o.repetition_penalty, "more than 0; 1 is none");
  finite("frequency-penalty", o.frequency_penalty);
  finite("presence-penalty", o.presence_penalty);
  if (o.penalty_window < -1)
    refuse("repeat-last-n", o.penalty_window, "-1 (the whole timeline) or more");
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0 || id >= vocab_size)
      fail_usage("logit-bias: token id {} is not in the vocabulary of {}", id, vocab_size);
    finite("logit-bias", bias);
  }
}

namespace {

// Steps 1 to 3. The result lies in `memory` or is what was given.
std::span<const float> adjusted_logits(const SamplerOptions& o, std::span<const float> all_logits,
                                       std::span<const Token> timeline, int usable_vocab,
                                       std::vector<float>& memory) {
  LAPIDARY_CHECK(usable_vocab > 0 && static_cast<size_t>(usable_vocab) <= all_logits.size(),
                 fmt::format("{} of {} logits", usable_vocab, all_logits.size()));
  const std::span<const float> logits = all_logits.first(static_cast<size_t>(usable_vocab));
  check_finite(logits);
  if (o.logit_bias.empty() && !has_penalties(o)) return logits;
  memory.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0 || id >= usable_vocab) continue;
    float& logit = memory[static_cast<size_t>(id)];
    adjust(logit, static_cast<double>(logit) + bias);
  }
  if (has_penalties(o)) apply_penalties(o, timeline, memory);
  return memory;
}

// Steps 4 to 7, of a temperature that is not 0.
std::vector<Candidate> candidates_of(const SamplerOptions& o, std::span<const float> logits) {
  const bool cut = o.top_k > 0 && static_cast<size_t>(o.top_k) < logits.size();
  auto candidates =
      cut ? top_candidates(logits, static_cast<size_t>(o.top_k)) : all_candidates(logits);
  const double sum = weigh(candidates, o.temperature);
  if (o.top_p < 1) keep_top_p(candidates, o.top_p, sum);
  if (o.min_p > 0)  // the most likely weighs 1
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < o.min_p; });
  return candidates;
}

// Fills in how sure the softmax of x is. x is lost.
void judge(Prediction& p, std::span<float> x) {
  constexpr float kLeast = -87;  // the kernel takes what is further below the largest for it too
  const auto best = static_cast<size_t>(most_likely(x));
  const float highest = std::exchange(x[best], -std::numeric_limits<float>::infinity());
  const float second = x[static_cast<size_t>(most_likely(x))];
  x[best] = highest;
  Eigen::Map<Eigen::ArrayXf> values(x.data(), std::ssize(x));
  values = (values - highest).max(kLeast);
  Eigen::ArrayXf weights = values;
  const double log_sum = best_kernels().softmax(weights.data(), weights.size());
  p.entropy = std::max(0.0, log_sum - (weights * values).cast<double>().sum());
  p.confidence = std::exp(-log_sum);
  p.margin = (1 - std::exp(double{second} - highest)) * p.confidence;
}

}  // namespace

Token sample(const SamplerOptions& o, std::span<const float> all_logits,
             std::span<const Token> timeline, int usable_vocab) {
  std::vector<float> memory;
  const auto logits = adjusted_logits(o, all_logits, timeline, usable_vocab, memory);
  if (o.temperature == 0) return most_likely(logits);
  return draw(candidates_of(o, logits), CounterRng(o.seed).uniform(timeline.size()));
}

Prediction predict(const SamplerOptions& o, std::span<const float> all_logits,
                   std::span<const Token> timeline, int64_t position, int usable_vocab) {
  std::vector<float> memory;
  const auto logits = adjusted_logits(o, all_logits, timeline, usable_vocab, memory);
  Prediction made;
  if (o.temperature == 0) {
    made.token = most_likely(logits);
    if (memory.empty()) memory.assign(logits.begin(), logits.end());
  } else {
    const std::vector<Candidate> candidates = candidates_of(o, logits);
    made.token = draw(candidates, CounterRng(o.seed).uniform(static_cast<uint64_t>(position)));
    const double highest = std::ranges::max(candidates, {}, &Candidate::logit).logit;
    memory.resize(candidates.size());
    std::ranges::transform(candidates, memory.begin(), [&](const Candidate& c) {
      return static_cast<float>((c.logit - highest) / o.temperature);
    });
  }
  judge(made, memory);
  return made;
}

}  // namespace lapidary
