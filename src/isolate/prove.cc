#include "isolate/prove.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <fmt/format.h>

#include "lapidary/error.h"
#include "lapidary/session.h"

#include "base/rng.h"

namespace lapidary {

namespace {

using Contexts = std::vector<std::vector<Token>>;
using Logits = std::vector<std::vector<float>>;  // after one more token of each context; or empty

constexpr double kAny = std::numeric_limits<double>::infinity();

// Gives the logits after one more token of each context, all at once, until all are read.
class Reading {
 public:
  virtual ~Reading() = default;
  virtual Logits next() = 0;
};

// A cache for each, and one step for all of them, in the order `order`.
class Separate final : public Reading {
 public:
  Separate(const std::shared_ptr<const Engine>& engine, Contexts contexts, bool reversed)
      : engine_(engine), contexts_(std::move(contexts)), reversed_(reversed) {
    for (size_t i = 0; i < contexts_.size(); ++i) sessions_.emplace_back(engine_);
  }

  Logits next() override {
    std::vector<StepItem> items;
    for (size_t i = 0; i < contexts_.size(); ++i)
      if (at_ < contexts_[i].size()) items.push_back({&sessions_[i], {&contexts_[i][at_], 1}});
    if (reversed_) std::ranges::reverse(items);
    engine_->step(items);
    Logits logits(contexts_.size());
    for (size_t i = 0; i < contexts_.size(); ++i)
      if (at_ < contexts_[i].size())
        logits[i].assign(sessions_[i].logits().begin(), sessions_[i].logits().end());
    ++at_;
    return logits;
  }

 private:
  std::shared_ptr<const Engine> engine_;
  Contexts contexts_;
  bool reversed_;
  std::vector<Session> sessions_;
  size_t at_ = 0;
};

// One cache, in which tokens of all contexts follow each other.
class Masked final : public Reading {
 public:
  Masked(const std::shared_ptr<const Engine>& engine, Contexts contexts)
      : engine_(engine), contexts_(std::move(contexts)), session_(Session::labelled(engine)) {}

  Logits next() override {
    Logits logits(contexts_.size());
    for (size_t i = 0; i < contexts_.size(); ++i) {
      if (at_ >= contexts_[i].size()) continue;
      const StepItem item{&session_, {&contexts_[i][at_], 1}, static_cast<int>(i)};
      engine_->step({&item, 1});
      logits[i].assign(session_.logits().begin(), session_.logits().end());
    }
    ++at_;
    return logits;
  }

 private:
  std::shared_ptr<const Engine> engine_;
  Contexts contexts_;
  Session session_;
  size_t at_ = 0;
};

// One cache that holds the first context, in which the others go on a token at a time.
class Sequential final : public Reading {
 public:
  Sequential(const std::shared_ptr<const Engine>& engine, const Contexts& contexts)
      : session_(engine), count_(contexts.size()), rest_(contexts[1]) {
    session_.append(contexts[0]);
  }

  Logits next() override {
    Logits logits(count_);
    if (at_ < rest_.size()) {
      const std::span<const float> row = session_.append({&rest_[at_], 1});
      logits[1].assign(row.begin(), row.end());
    }
    ++at_;
    return logits;
  }

 private:
  Session session_;
  size_t count_;
  std::vector<Token> rest_;
  size_t at_ = 0;
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t v = 0; v < std::min(a.size(), b.size()); ++v) {
    const double difference = std::abs(double{a[v]} - b[v]);
    if (!(difference <= largest)) largest = std::isnan(difference) ? kAny : difference;
  }
  return largest;
}

class Prover {
 public:
  Prover(const std::shared_ptr<const Engine>& engine, std::span<const std::vector<Token>> contexts,
         const Watch& watch)
      : engine_(engine), contexts_(contexts.begin(), contexts.end()), watch_(watch) {
    for (const auto& context : contexts_) longest_ = std::max(longest_, std::ssize(context));
  }

  std::vector<IsolationCheck> prove() {
    const bool exact = engine_->compute() == Compute::kExact && engine_->kv_type() == KvType::kF32;
    const double tolerance = exact ? kMaskToleranceExact : kMaskToleranceRounded;
    std::vector<IsolationCheck> checks;
    const auto add = [&](const char* statement, double difference, double least, double most) {
      checks.push_back({statement, difference, least, most});
    };
    const size_t last = contexts_.size() - 1;
    const auto separate = [&](const Contexts& contexts, bool reversed = false) {
      return std::make_unique<Separate>(engine_, contexts, reversed);
    };
    const auto masked = [&](const Contexts& contexts) {
      return std::make_unique<Masked>(engine_, contexts);
    };
    add("separate caches: other tokens in the first cluster leave the others' bits alone",
        compare(*separate(contexts_), *separate(changed(0)), 0), 0, 0);
    add("separate caches: other tokens in the last cluster leave the others' bits alone",
        compare(*separate(contexts_), *separate(changed(last)), last), 0, 0);
    add("separate caches: the order of the clusters changes no bit",
        compare(*separate(contexts_), *separate(contexts_, true), kNone), 0, 0);
    add("one masked cache: other tokens in the first cluster leave the others' bits alone",
        compare(*masked(contexts_), *masked(changed(0)), 0), 0, 0);
    const double difference = compare(*masked(contexts_), *separate(contexts_), kNone);
    add("one masked cache computes what separate caches do, to rounding", difference, 0,
        tolerance * largest_logit_);
    Sequential plain(engine_, contexts_), leaking(engine_, changed(0));
    add("control: one cache without a mask does leak", compare(plain, leaking, 0),
        std::numeric_limits<double>::min(), kAny);
    return checks;
  }

 private:
  static constexpr size_t kNone = std::numeric_limits<size_t>::max();

  // Other ids in one cluster, all but its <bos>.
  Contexts changed(size_t cluster) const {
    Contexts contexts = contexts_;
    const auto vocab = static_cast<uint64_t>(engine_->config().vocab_size);
    for (size_t i = 1; i < contexts[cluster].size(); ++i) {
      Token& id = contexts[cluster][i];
      id = static_cast<Token>((static_cast<uint64_t>(id) + 1 + mix64(i) % (vocab - 1)) % vocab);
    }
    return contexts;
  }

  // The largest difference over all positions of all clusters but `without`.
  double compare(Reading& a, Reading& b, size_t without) {
    double largest = 0;
    for (int64_t at = 0; at < longest_; ++at) {
      watch_.throw_if_stopped();
      const Logits of_a = a.next(), of_b = b.next();
      for (size_t i = 0; i < of_a.size(); ++i) {
        if (i == without) continue;
        largest = std::max(largest, largest_difference(of_a[i], of_b[i]));
        for (const float logit : of_a[i])
          largest_logit_ = std::max(largest_logit_, std::abs(double{logit}));
      }
      watch_.report(++done_, 6 * longest_);
    }
    return largest;
  }

  std::shared_ptr<const Engine> engine_;
  Contexts contexts_;
  const Watch& watch_;
  int64_t longest_ = 0, done_ = 0;
  double largest_logit_ = 0;
};

}  // namespace

void check_proof(const Engine& engine, std::span<const std::vector<Token>> contexts,
                 const std::string& example) {
  const int64_t positions = engine.config().max_position_embeddings;
  const auto check = [&](const std::string& what, int64_t needed) {
    if (needed > positions)
      throw Error(
          ErrorKind::kInput,
          fmt::format("{}: {} need{} {} positions, {} more than the {} there are", example, what,
                      what.ends_with("s") ? "" : "s", needed, needed - positions, positions),
          "read fewer tokens of each with -n, or take a model with a longer context");
  };
  for (size_t i = 0; i < contexts.size(); ++i)
    check(fmt::format("cluster {}", i + 1), std::ssize(contexts[i]));
  check("the control's first two clusters", std::ssize(contexts[0]) + std::ssize(contexts[1]));
}

std::vector<IsolationCheck> prove_isolation(const std::shared_ptr<const Engine>& engine,
                                            std::span<const std::vector<Token>> contexts,
                                            const Watch& watch) {
  LAPIDARY_CHECK(contexts.size() >= 2, "isolation is between clusters");
  return Prover(engine, contexts, watch).prove();
}

}  // namespace lapidary
