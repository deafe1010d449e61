#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "io/test_files.h"
#include "kernels/kernels.h"
#include "train/gradients.h"

namespace lapidary {
namespace {

constexpr double kUnit = 0x1p-24;  // of rounding to f32

// Tensors that own their memory, as Parameters.
class Tensors {
 public:
  void add(const std::string& name, std::vector<float> values, int64_t rows, int64_t cols,
           bool decay = true) {
    grads_.emplace_back(values.size());
    values_.push_back(std::move(values));
    parameters_.push_back({.name = name, .rows = rows, .cols = cols, .decay = decay});
    for (size_t i = 0; i < parameters_.size(); ++i) {
      parameters_[i].value = values_[i];
      parameters_[i].grad = grads_[i];
    }
  }
  std::span<const Parameter> all() const { return parameters_; }
  Parameter& operator[](size_t i) { return parameters_[i]; }
  size_t index(const std::string& name) const {
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (parameters_[i].name == name) return i;
    ADD_FAILURE() << name;
    return 0;
  }
  std::vector<std::vector<float>> values() const { return values_; }
  // Gradients that look random and depend on step and place.
  void fill_gradients(uint64_t step, float scale = 1) {
    for (size_t i = 0; i < grads_.size(); ++i) {
      const CounterRng rng(17 + i, step);
      for (size_t k = 0; k < grads_[i].size(); ++k) grads_[i][k] = scale * rng.normal(k);
    }
  }

 private:
  std::vector<std::vector<float>> values_, grads_;
  std::vector<Parameter> parameters_;
};

std::vector<float> random_values(int64_t n, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return values;
}

Tensors some_tensors() {
  Tensors t;
  t.add("a", random_values(int64_t{70} * 300, 1), 70, 300);
  t.add("v", random_values(300, 2), 300, 0, false);
  t.add("b", random_values(int64_t{40} * 20, 3), 40, 20);
  return t;
}

OptimizerOptions of_kind(OptimizerKind kind) {
  return {.kind = kind, .beta2 = 0.95, .weight_decay = 0.1, .momentum = 0.9};
}

constexpr OptimizerKind kAllKinds[] = {OptimizerKind::kAdamW, OptimizerKind::kAdamW8,
                                       OptimizerKind::kSgd, OptimizerKind::kMuon};

std::string bytes_of(Optimizer& optimizer) {
  std::string bytes;
  for (const StateArray& array : optimizer.state())
    bytes.append(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
  return bytes;
}

// What PyTorch made, as floats.
class Golden {
 public:
  std::vector<float> operator[](const std::string& name) const {
    const TensorView* view = file_.find(name);
    if (view == nullptr) {
      ADD_FAILURE() << name;
      return {};
    }
    std::vector<float> values(static_cast<size_t>(view->elements()));
    std::memcpy(values.data(), view->bytes.data(), view->bytes.size());
    return values;
  }

 private:
  SafetensorsFile file_ =
      SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/optimizers.safetensors");
};

class AgainstTorch : public ::testing::Test {
 protected:
  // Takes the twenty steps of tools/make_optimizer_golden.py.
  void run(const OptimizerOptions& options) {
    tensors_.add("wide", golden["value.wide"], 6, 40);
    tensors_.add("tall", golden["value.tall"], 33, 5, false);
    tensors_.add("vector", golden["value.vector"], 17, 0);
    Executor ex(best_kernels(), 2);
    optimizer_ = make_optimizer(options, tensors_.all());
    for (size_t step = 0; step < kSteps; ++step) {
      for (size_t i = 0; i < tensors_.all().size(); ++i) {
        const Parameter& p = tensors_[i];
        const std::vector<float> grads = golden["grad." + p.name];
        std::copy_n(grads.begin() + static_cast<int64_t>(step * p.value.size()), p.value.size(),
                    p.grad.begin());
      }
      optimizer_->step(tensors_.all(), 1e-2 * static_cast<double>(step + 1) / kSteps, ex);
    }
  }

  std::span<const float> made(const std::string& name) {
    if (name.find('.') == std::string::npos) return tensors_[tensors_.index(name)].value;
    for (const StateArray& array : optimizer_->state())
      if (array.name == name)
        return {reinterpret_cast<const float*>(array.bytes.data()),
                array.bytes.size() / sizeof(float)};
    ADD_FAILURE() << name;
    return {};
  }

  // bound(parameter, element): how far `name` may be from what PyTorch makes in float64.
  template <class Bound>
  void expect_near(const std::string& kind, const std::string& name, Bound&& bound) {
    const std::vector<float> exact = golden[fmt::format("{}.{}.exact", kind, name)];
    const std::span<const float> ours = made(name);
    ASSERT_EQ(ours.size(), exact.size());
    for (size_t i = 0; i < exact.size(); ++i)
      ASSERT_TRUE(std::abs(ours[i] - exact[i]) <= bound(i))
          << name << " " << i << ": " << ours[i] << " for " << exact[i];
  }

  // The largest gradient that element i of a parameter ever has.
  float largest_gradient(const std::string& name, size_t i) {
    const std::vector<float> grads = golden["grad." + name];
    float largest = 0;
    for (size_t at = i; at < grads.size(); at += grads.size() / kSteps)
      largest = std::max(largest, std::abs(grads[at]));
    return largest;
  }

  static constexpr size_t kSteps = 20;
  static constexpr double kRates = 1e-2 * 10.5;  // the sum over steps
  const Golden golden;
  Tensors tensors_;
  std::unique_ptr<Optimizer> optimizer_;
};

// With u the unit of rounding, g the largest gradient of an element and t <= 20 steps: the first
// moment's roundings are below 2 g u in each step, the second's below 3 u of its size. Both are at
// most g and g^2. As sqrt(v) with its correction is above g / 6, what they do to a step of the rate
// r is below r (6 * 2 t u / (1 - beta1^t) + 6 * (1.5 t + 6) u) < r * 500 u; and each step rounds
// the value twice.
TEST_F(AgainstTorch, AdamW) {
  run(of_kind(OptimizerKind::kAdamW));
  for (const std::string name : {"wide", "tall", "vector"}) {
    const auto g = [&](size_t i) { return largest_gradient(name, i); };
    expect_near("adamw", "exp_avg." + name, [&](size_t i) { return 2.0 * kSteps * kUnit * g(i); });
    expect_near("adamw", "exp_avg_sq." + name,
                [&](size_t i) { return 3.0 * kSteps * kUnit * g(i) * g(i); });
    expect_near("adamw", name, [&](size_t) { return (500 * kRates + 2 * kSteps) * kUnit; });
  }
}

// The buffer is below g / (1 - 0.9) with the decay's part, and rounded four times in each step; its
// errors and its size, at most 10 (g + 0.1), come into the value by the rate.
TEST_F(AgainstTorch, SgdWithMomentum) {
  run(of_kind(OptimizerKind::kSgd));
  for (const std::string name : {"wide", "tall", "vector"}) {
    const auto buffer = [&](size_t i) {
      return 4.0 * kSteps * kUnit * 10 * (largest_gradient(name, i) + 0.4);
    };
    expect_near("sgd", "momentum_buffer." + name, buffer);
    expect_near("sgd", name, [&](size_t i) { return kRates * buffer(i) + 6 * kSteps * kUnit; });
  }
}

TEST_F(AgainstTorch, SgdWithoutMomentumHasNoState) {
  OptimizerOptions options = of_kind(OptimizerKind::kSgd);
  options.momentum = 0;
  run(options);
  EXPECT_EQ(optimizer_->state().size(), 1u);  // the step counts
  for (const std::string name : {"wide", "tall", "vector"})
    expect_near("plain_sgd", name, [&](size_t i) {
      return (4 * kRates * (largest_gradient(name, i) + 0.1) + 2 * kSteps) * kUnit;
    });
}

// Five iterations magnify roundings by more than a bound can say that also tells a wrong factor.
// The products of PyTorch in f32 round as often as ours, in another order: eight times their
// errors.
TEST_F(AgainstTorch, Muon) {
  run(of_kind(OptimizerKind::kMuon));
  for (const std::string name : {"wide", "tall"}) {
    const std::vector<float> exact = golden["muon." + name + ".exact"];
    const std::vector<float> rounded = golden["muon." + name];
    double error = 0;
    for (size_t i = 0; i < exact.size(); ++i)
      error = std::max<double>(error, std::abs(exact[i] - rounded[i]));
    EXPECT_LT(error, 1e-6);
    expect_near("muon", "momentum_buffer." + name,
                [&](size_t i) { return 3.0 * kSteps * kUnit * largest_gradient(name, i); });
    expect_near("muon", name, [&](size_t) { return 8 * error; });
  }
  // The vector is AdamW's.
  expect_near("adamw", "vector", [&](size_t) { return (500 * kRates + 2 * kSteps) * kUnit; });
}

TEST(Optimizer, ResultsDoNotDependOnThreads) {
  for (const OptimizerKind kind : kAllKinds) {
    SCOPED_TRACE(name_of(kind));
    std::string states[3];
    std::vector<std::vector<float>> values[3];
    for (const int threads : {1, 2, 3}) {
      Tensors t = some_tensors();
      Executor ex(best_kernels(), threads);
      const auto optimizer = make_optimizer(of_kind(kind), t.all());
      for (uint64_t step = 0; step < 5; ++step) {
        t.fill_gradients(step);
        optimizer->step(t.all(), 1e-2, ex);
      }
      states[threads - 1] = bytes_of(*optimizer);
      values[threads - 1] = t.values();
    }
    EXPECT_EQ(states[0], states[1]);
    EXPECT_EQ(states[0], states[2]);
    EXPECT_EQ(values[0], values[1]);
    EXPECT_EQ(values[0], values[2]);
  }
}

TEST(Optimizer, GoesOnAfterRestoringAsIfItHadNeverStopped) {
  for (const OptimizerKind kind : kAllKinds) {
    SCOPED_TRACE(name_of(kind));
    const ScratchFolder scratch;
    const auto path = scratch.path() / "optimizer.safetensors";
    Executor ex(best_kernels(), 2);
    Tensors whole = some_tensors();
    const auto never_stopped = make_optimizer(of_kind(kind), whole.all());
    Tensors resumed = some_tensors();
    for (uint64_t step = 0; step < 6; ++step) {
      whole.fill_gradients(step);
      never_stopped->step(whole.all(), 1e-2, ex);
      if (step != 2) continue;
      write_state(path, never_stopped->state(), {{"format", "lapidary"}});
      for (size_t i = 0; i < whole.all().size(); ++i)
        std::copy(whole[i].value.begin(), whole[i].value.end(), resumed[i].value.begin());
    }
    const auto restored = make_optimizer(of_kind(kind), resumed.all());
    read_state(SafetensorsFile::open(path), restored->state());
    for (uint64_t step = 3; step < 6; ++step) {
      resumed.fill_gradients(step);
      restored->step(resumed.all(), 1e-2, ex);
    }
    EXPECT_EQ(bytes_of(*never_stopped), bytes_of(*restored));
    EXPECT_EQ(whole.values(), resumed.values());
  }
}

TEST(Optimizer, StateOfAnotherOptimizerOrModelIsRefused) {
  const ScratchFolder scratch;
  const auto path = scratch.path() / "o.safetensors";
  const std::string name = path.string();
  Tensors t = some_tensors();
  const auto adamw = make_optimizer(of_kind(OptimizerKind::kAdamW), t.all());
  write_state(path, adamw->state());
  const SafetensorsFile file = SafetensorsFile::open(path);

  const auto sgd = make_optimizer(of_kind(OptimizerKind::kSgd), t.all());
  EXPECT_EQ(error_of([&] { read_state(file, sgd->state()); }, name),
            ": tensor 'momentum_buffer.a' is missing");
  const auto small = make_optimizer(of_kind(OptimizerKind::kAdamW8), t.all());
  EXPECT_EQ(error_of([&] { read_state(file, small->state()); }, name),
            ": tensor 'exp_avg.a': F32 [21000], expected U8 [21000]");
  const auto fewer = make_optimizer(of_kind(OptimizerKind::kAdamW), t.all().first(2));
  EXPECT_EQ(error_of([&] { read_state(file, fewer->state()); }, name),
            ": tensor 'step': I64 [3], expected I64 [2]");
  std::vector<StateArray> part = adamw->state();
  part.pop_back();
  EXPECT_EQ(error_of([&] { read_state(file, part); }, name),
            ": tensor 'exp_avg_sq.b' is not part of this optimizer's state");
}

// ---- what training that merges does

class Pruning : public ::testing::TestWithParam<OptimizerKind> {
 protected:
  void SetUp() override {
    tensors_ = some_tensors();
    optimizer_ = make_optimizer(of_kind(GetParam()), tensors_.all());
    Executor ex(best_kernels(), 1);
    for (uint64_t step = 0; step < 3; ++step) {
      tensors_.fill_gradients(step);
      optimizer_->step(tensors_.all(), 1e-3, ex);
    }
  }
  // A moment of a parameter, as floats.
  std::vector<float> moment(const std::string& name, int64_t size) {
    const bool bytes = GetParam() == OptimizerKind::kAdamW8;
    Moment copy(name,
                !bytes                           ? MomentType::kF32
                : name.starts_with("exp_avg_sq") ? MomentType::kUnsigned8
                                                 : MomentType::kSigned8,
                size);
    std::vector<StateArray> arrays;
    copy.append_arrays(arrays);
    for (const StateArray& to : arrays)
      for (const StateArray& from : optimizer_->state())
        if (from.name == to.name) std::memcpy(to.bytes.data(), from.bytes.data(), to.bytes.size());
    std::vector<float> values(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) values[static_cast<size_t>(i)] = copy.at(i);
    return values;
  }

  Tensors tensors_;
  std::unique_ptr<Optimizer> optimizer_;
};

TEST_P(Pruning, KeepsWhatIsStrictlyAboveTheQuantileOfEachMoment) {
  const std::vector<float> other = moment("exp_avg.a", 21000);
  for (const std::string name : {"exp_avg.b", "exp_avg_sq.b"})
    ASSERT_FALSE(moment(name, 800).empty());
  const auto before = moment("exp_avg.b", 800), before_sq = moment("exp_avg_sq.b", 800);
  optimizer_->keep_largest(2, 0.9);
  for (const auto& [name, old] : {std::pair{"exp_avg.b", before}, {"exp_avg_sq.b", before_sq}}) {
    SCOPED_TRACE(name);
    std::vector<float> sorted(old);
    for (float& x : sorted) x = std::abs(x);
    std::sort(sorted.begin(), sorted.end());
    const double place = 0.9 * 799;  // between 719 and 720
    const double threshold = sorted[719] + (place - 719) * (sorted[720] - sorted[719]);
    const auto now = moment(name, 800), now_sq = moment("exp_avg_sq.b", 800);
    int64_t kept = 0;
    for (size_t i = 0; i < now.size(); ++i) {
      const bool stays = std::abs(old[i]) > threshold && now_sq[i] != 0;
      EXPECT_EQ(now[i], stays ? old[i] : 0);
      kept += now[i] != 0 ? 1 : 0;
    }
    EXPECT_LE(kept, 80);
    EXPECT_GE(kept, 20);  // 8-bit values are often equal, and the two moments differ
  }
  EXPECT_EQ(moment("exp_avg.a", 21000), other);
}

TEST_P(Pruning, QuantilesZeroAndOne) {
  const auto before = moment("exp_avg.b", 800);
  const float least = std::abs(*std::min_element(
      before.begin(), before.end(), [](float x, float y) { return std::abs(x) < std::abs(y); }));
  optimizer_->keep_largest(2, 0);
  const auto now = moment("exp_avg.b", 800), now_sq = moment("exp_avg_sq.b", 800);
  for (size_t i = 0; i < now.size(); ++i)
    EXPECT_EQ(now[i], std::abs(before[i]) > least && now_sq[i] != 0 ? before[i] : 0);
  optimizer_->keep_largest(2, 1);
  EXPECT_EQ(moment("exp_avg.b", 800), std::vector<float>(800));
}

TEST_P(Pruning, AtRandomTakesBothMomentsOfAnEntry) {
  const auto before = moment("exp_avg.a", 21000), before_sq = moment("exp_avg_sq.a", 21000);
  optimizer_->prune_at_random(0, 0.99, CounterRng(5));
  const auto now = moment("exp_avg.a", 21000), now_sq = moment("exp_avg_sq.a", 21000);
  int64_t kept = 0;
  for (size_t i = 0; i < now.size(); ++i) {
    const bool stays = now_sq[i] != 0;
    kept += stays ? 1 : 0;
    EXPECT_EQ(now[i], stays ? before[i] : 0);
    EXPECT_EQ(now_sq[i], stays ? before_sq[i] : 0);
  }
  EXPECT_NEAR(static_cast<double>(kept), 210, 5 * std::sqrt(210));
}

TEST_P(Pruning, ResetStartsAParameterAnew) {
  optimizer_->reset(0);
  Tensors fresh = some_tensors();
  const auto new_one = make_optimizer(of_kind(GetParam()), fresh.all());
  std::copy(tensors_[0].value.begin(), tensors_[0].value.end(), fresh[0].value.begin());
  const std::vector<float> other = tensors_.values()[2];
  Executor ex(best_kernels(), 1);
  tensors_.fill_gradients(9);
  fresh.fill_gradients(9);
  optimizer_->step(tensors_.all(), 1e-3, ex);
  new_one->step(fresh.all(), 1e-3, ex);
  EXPECT_EQ(tensors_.values()[0], fresh.values()[0]);
  EXPECT_NE(tensors_.values()[2], other);
}

INSTANTIATE_TEST_SUITE_P(Adam, Pruning,
                         ::testing::Values(OptimizerKind::kAdamW, OptimizerKind::kAdamW8),
                         [](const auto& test) { return std::string(name_of(test.param)); });

// ---- gradients

TEST(Gradients, NormIsThatOfAllTogetherForAnyThreads) {
  Tensors t = some_tensors();
  t.fill_gradients(1);
  long double sum = 0;
  for (const Parameter& p : t.all())
    for (const float g : p.grad) sum += static_cast<long double>(g) * g;
  ThreadPool one(1), three(3);
  const double norm = gradient_norm(t.all(), one);
  EXPECT_NEAR(norm, static_cast<double>(std::sqrt(sum)), 22100 * 0x1p-53 * norm);
  EXPECT_EQ(norm, gradient_norm(t.all(), three));
}

TEST(Gradients, AreClippedAboveTheLimitAlone) {
  Tensors t = some_tensors();
  t.fill_gradients(1, 3);
  ThreadPool pool(2);
  const double norm = gradient_norm(t.all(), pool);
  const std::vector<float> before(t[0].grad.begin(), t[0].grad.end());
  EXPECT_EQ(clip_gradients(t.all(), norm * 1.001, pool), norm);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), t[0].grad.begin()));
  EXPECT_EQ(clip_gradients(t.all(), 0.5, pool), norm);
  EXPECT_NEAR(gradient_norm(t.all(), pool), 0.5, 0.5 * (2 * kUnit + 1e-6 / norm));
  EXPECT_NEAR(t[1].grad[7], 0.5 / norm * 3 * CounterRng(18, 1).normal(7), 1e-6);
}

TEST(Gradients, WithNanAreLeftForTheCallerToSee) {
  Tensors t = some_tensors();
  t.fill_gradients(1);
  t[1].grad[299] = std::nanf("");
  ThreadPool pool(2);
  const float before = t[0].grad[0];
  EXPECT_TRUE(std::isnan(clip_gradients(t.all(), 1e-3, pool)));
  EXPECT_EQ(t[0].grad[0], before);
}

TEST(OptimizerOptions, SayWhatIsOutOfRange) {
  EXPECT_EQ(error_of([] { optimizer_kind("adam"); }),
            "--optimizer: 'adam' given, expected adamw, adamw8, sgd or muon");
  for (const OptimizerKind kind : kAllKinds) EXPECT_EQ(optimizer_kind(name_of(kind)), kind);
  EXPECT_EQ(error_of([] { OptimizerOptions{.beta2 = 1}.check(); }),
            "--beta2: 1 given, expected 0 or more and less than 1");
  EXPECT_EQ(error_of([] { OptimizerOptions{.weight_decay = -0.1}.check(); }),
            "--weight-decay: -0.1 given, expected 0 or more");
  EXPECT_EQ(error_of([] { OptimizerOptions{.eps = 0}.check(); }),
            "--eps: 0 given, expected more than 0");
}

}  // namespace
}  // namespace lapidary
