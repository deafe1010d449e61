// Weights of adapters, fitted to examples.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "lapidary/blend.h"
#include "lapidary/engine.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "gemma/adapter_file.h"
#include "gemma/adapter_parts.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "gemma/low_rank.h"
#include "train/batches.h"
#include "train/data.h"

namespace lapidary {

namespace {

constexpr double kLimit = 1.5;          // of a weight's size
constexpr double kSettled = 1e-3;       // a step that moves every weight by less is the last
constexpr double kLeastDescent = 1e-4;  // of what a step promises, to be taken

using Values = std::vector<double>;

// The matrix of an adapter adds scale (w b) a x: its b is multiplied by the weight w, and the
// derivative by w is the one by w b, times b.
struct WeightedMatrix {
  size_t weight;          // among the weights
  AdapterMatrix* matrix;  // with w b for b
  AlignedVector<float> b;
  AlignedVector<float> gradient = AlignedVector<float>(b.size());  // by w b
};

// A place among the weights.
struct Point {
  Values weights;
  Values gradient = {};  // of the loss
  double loss = 0;       // nats per target
};

// The mean loss as a function of the weights.
class LossOnData {
 public:
  LossOnData(const std::vector<BlendPart>& parts, const FitOptions& o, const Watch& watch)
      : watch_(watch),
        budget_(o.passes),
        model_(load_model(o.model)),
        ex_(best_kernels(), o.threads > 0 ? o.threads : cpu_budget().threads()),
        layers_(o.per_layer ? model_.config.num_hidden_layers : 1) {
    for (const BlendPart& part : parts) {
      adapters_.push_back(load_and_attach(part.adapter, 1, model_.config, model_.weights));
      check_blendable(adapters_.back(), part.adapter);
    }
    for (size_t i = 0; i < adapters_.size(); ++i)
      for (AdapterMatrix& m : adapters_[i].matrices) {
        const int layer = o.per_layer ? find_adapter_target(m.target)->layer : 0;
        matrices_.push_back({i * layers_ + static_cast<size_t>(layer), &m, m.b});
      }
    read(o);
    backprop_ = std::make_unique<Backprop>(ex_, model_.config, model_.weights, longest_, 0);
    for (WeightedMatrix& m : matrices_)
      backprop_->tape().track(m.matrix->b.data(), std::ssize(m.b), m.gradient.data());
  }

  size_t layers() const { return layers_; }
  size_t size() const { return adapters_.size() * layers_; }
  // Whether there is anything that the weight is of.
  bool has(size_t weight) const {
    return std::ranges::any_of(matrices_,
                               [&](const WeightedMatrix& m) { return m.weight == weight; });
  }
  int64_t targets() const { return targets_; }
  int64_t passes() const { return passes_; }

  // One pass over the data.
  Point at(Values weights) {
    for (WeightedMatrix& m : matrices_) {
      const auto w = static_cast<float>(weights[m.weight]);
      for (size_t i = 0; i < m.b.size(); ++i) m.matrix->b[i] = w * m.b[i];
      std::ranges::fill(m.gradient, 0.0f);
    }
    Point point{.weights = std::move(weights)};
    for (size_t i = 0; i < batches_.size(); ++i) {
      const Batch& batch = batches_[i];
      const auto share = static_cast<float>(1 / static_cast<double>(targets_));
      point.loss +=
          backprop_->run({batch.tokens, batch.targets, batch.lengths}, share, watch_).nats;
      watch_.report(passes_ * std::ssize(batches_) + static_cast<int64_t>(i) + 1,
                    budget_ * std::ssize(batches_));
    }
    ++passes_;
    point.loss /= static_cast<double>(targets_);
    point.gradient.resize(size());
    for (const WeightedMatrix& m : matrices_)
      for (size_t i = 0; i < m.b.size(); ++i)
        point.gradient[m.weight] += double{m.gradient[i]} * m.b[i];
    return point;
  }

 private:
  void read(const FitOptions& o) {
    const Tokenizer tokenizer = load_tokenizer(o.model);
    const TrainingData data = open_data(o.data, tokenizer, {.sequence_length = o.sequence_length},
                                        ex_.pool(), Watch{{}, watch_.stop});
    BatchStream stream(*data.train, {.sequence_length = o.sequence_length, .repeat = false});
    while (!stream.done()) {
      batches_.push_back(stream.next());
      targets_ += batches_.back().target_count();
      longest_ = std::max(longest_, std::ssize(batches_.back().tokens));
    }
  }

  const Watch& watch_;
  int64_t budget_;
  Model model_;
  Executor ex_;
  size_t layers_;
  std::vector<Adapter> adapters_;
  std::vector<WeightedMatrix> matrices_;
  std::vector<Batch> batches_;
  int64_t targets_ = 0, longest_ = 0, passes_ = 0;
  std::unique_ptr<Backprop> backprop_;
};

double dot(const Values& x, const Values& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

Values difference(const Values& x, const Values& y) {
  Values d(x.size());
  for (size_t i = 0; i < d.size(); ++i) d[i] = x[i] - y[i];
  return d;
}

double largest(const Values& x) {
  double size = 0;
  for (const double value : x) size = std::max(size, std::abs(value));
  return size;
}

// The loss and `penalty` for each weight's size.
double objective(const Point& point, double penalty) {
  double sizes = 0;
  for (const double w : point.weights) sizes += std::abs(w);
  return point.loss + penalty * sizes;
}

// A step of `rate` against the gradient, drawn towards 0 by the penalty and held within the limits.
Values moved(const Point& point, double rate, double penalty) {
  Values weights = point.weights;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double free = weights[i] - rate * point.gradient[i];
    const double size = std::clamp(std::abs(free) - rate * penalty, 0.0, kLimit);
    weights[i] = std::copysign(size, free);
  }
  return weights;
}

// Proximal gradient descent, whose rate is the inverse of the curvature along the last step
// (Barzilai and Borwein), and less where that does not descend. Returns whether it settled.
bool descend(LossOnData& loss, const FitOptions& o, double penalty, Point& best) {
  constexpr double kFirstMove = 0.5, kGrowth = 10;
  const double slope = largest(best.gradient);
  double rate = slope > 0 ? kFirstMove / slope : 1;
  for (;;) {
    Values weights = moved(best, rate, penalty);
    const Values step = difference(weights, best.weights);
    if (largest(step) < kSettled) return true;
    if (loss.passes() >= o.passes) return false;
    const Point tried = loss.at(std::move(weights));
    const double promised = dot(step, step) / (2 * rate);
    if (!(objective(tried, penalty) <= objective(best, penalty) - kLeastDescent * promised)) {
      rate /= 4;
      continue;
    }
    const double bent = dot(step, difference(tried.gradient, best.gradient));
    const double ideal = bent > 0 ? dot(step, step) / bent : kGrowth * rate;
    rate = std::clamp(ideal, rate / kGrowth, rate * kGrowth);
    best = tried;
  }
}

void check(const std::vector<BlendPart>& parts, const FitOptions& o) {
  if (parts.empty()) fail_usage("no adapter given to blend");
  for (const BlendPart& part : parts)
    if (!(std::abs(part.weight) <= kLimit))
      fail_usage("{}: weight {} given, expected {} to {} where weights are learned",
                 part.adapter.string(), part.weight, -kLimit, kLimit);
  if (!(o.penalty >= 0 && o.penalty <= std::numeric_limits<double>::max()))
    fail_usage("--penalty: {} given, expected 0 or more", o.penalty);
  if (o.passes < 3) fail_usage("--passes: {} given, expected 3 or more", o.passes);
}

}  // namespace

BlendFit fit_blend(const std::vector<BlendPart>& parts, const FitOptions& o, const Watch& watch) {
  check(parts, o);
  LossOnData loss(parts, o, watch);
  const size_t layers = loss.layers();
  const double penalty = o.penalty / static_cast<double>(layers);
  Values given;
  for (size_t i = 0; i < loss.size(); ++i)
    given.push_back(loss.has(i) ? parts[i / layers].weight : 0);

  const Point none = loss.at(Values(loss.size()));
  if (!std::isfinite(none.loss))
    fail("{}: the loss on {} is {}", o.model.string(), o.data.string(), none.loss);
  const Point start = loss.at(given);
  Point best = objective(start, penalty) < objective(none, penalty) ? start : none;
  BlendFit fit{
      .weights = {}, .base_loss = none.loss, .given_loss = start.loss, .targets = loss.targets()};
  fit.settled = descend(loss, o, penalty, best);
  fit.loss = best.loss;
  fit.passes = loss.passes();
  for (size_t i = 0; i < loss.size(); i += layers)
    fit.weights.emplace_back(best.weights.begin() + static_cast<int64_t>(i),
                             best.weights.begin() + static_cast<int64_t>(i + layers));
  return fit;
}

}  // namespace lapidary
