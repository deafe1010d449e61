#include "train/moment.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "train/optimizer.h"

namespace lapidary {
namespace {

std::vector<uint16_t> random_bits(uint64_t stream, size_t n = kMomentBlock) {
  const CounterRng rng(3, stream);
  std::vector<uint16_t> bits(n);
  for (size_t i = 0; i < n; ++i) bits[i] = static_cast<uint16_t>(rng.bits(i));
  return bits;
}

// Values of sizes from 1 down to 2^-range.
std::vector<float> spread(double range, bool with_sign, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<float> values(kMomentBlock);
  for (size_t i = 0; i < values.size(); ++i) {
    const double size = std::exp2(-range * rng.uniform(2 * i));
    values[i] = static_cast<float>(with_sign && rng.uniform(2 * i + 1) < 0.5 ? -size : size);
  }
  values[0] = 1;
  return values;
}

std::vector<float> decoded(const Moment& moment) {
  std::vector<float> values(kMomentBlock);
  moment.decode(0, kMomentBlock, values.data());
  for (int64_t i = 0; i < kMomentBlock; ++i)
    EXPECT_EQ(values[static_cast<size_t>(i)], moment.at(i));
  return values;
}

TEST(Moment8, ErrorIsBelowAnEighthOfTheValueOverTheRange) {
  for (const auto& [type, range] :
       {std::pair{MomentType::kUnsigned8, 31.0}, {MomentType::kSigned8, 15.0}}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Moment moment("m", type, kMomentBlock);
      const auto values = spread(range, type == MomentType::kSigned8, seed);
      moment.encode(0, kMomentBlock, values.data(), random_bits(seed).data());
      const auto back = decoded(moment);
      for (size_t i = 0; i < values.size(); ++i)
        ASSERT_LT(std::abs(back[i] - values[i]), std::abs(values[i]) / 8) << values[i];
    }
  }
}

TEST(Moment8, WhatWasDecodedIsEncodedExactly) {
  for (const MomentType type : {MomentType::kUnsigned8, MomentType::kSigned8}) {
    Moment moment("m", type, kMomentBlock);
    const auto values = spread(10, type == MomentType::kSigned8, 1);
    moment.encode(0, kMomentBlock, values.data(), random_bits(1).data());
    const auto once = decoded(moment);
    moment.encode(0, kMomentBlock, once.data(), random_bits(2).data());
    EXPECT_EQ(decoded(moment), once);
  }
}

// The mean of many roundings is the value: within five standard errors, of steps of 1/8.
TEST(Moment8, RoundingIsRightOnAverage) {
  constexpr int kTimes = 2000;
  for (const auto& [type, range] :
       {std::pair{MomentType::kUnsigned8, 30.0}, {MomentType::kSigned8, 15.0}}) {
    const auto values = spread(range, type == MomentType::kSigned8, 4);
    std::vector<double> sums(values.size());
    for (uint64_t time = 0; time < kTimes; ++time) {
      Moment moment("m", type, kMomentBlock);
      moment.encode(0, kMomentBlock, values.data(), random_bits(time).data());
      const auto back = decoded(moment);
      for (size_t i = 0; i < back.size(); ++i) sums[i] += back[i];
    }
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(sums[i] / kTimes / values[i], 1, 5 * 0.0625 / std::sqrt(kTimes)) << values[i];
  }
}

TEST(Moment8, FarBelowTheLargestSecondMomentsStayPositiveAndFirstOnesAreRightOnAverage) {
  std::vector<float> values(kMomentBlock, 1e-30f);
  values[0] = 1;
  values[1] = 0;
  Moment second("v", MomentType::kUnsigned8, kMomentBlock);
  second.encode(0, kMomentBlock, values.data(), random_bits(1).data());
  const auto back = decoded(second);
  EXPECT_EQ(back[1], 0);
  for (size_t i = 2; i < back.size(); ++i) {
    EXPECT_GT(back[i], 0);
    EXPECT_LE(back[i], 0x1p-30f);
  }

  for (size_t i = 1; i < values.size(); ++i) values[i] = i % 2 == 0 ? 0x1p-18f : -0x1p-18f;
  double sum = 0;
  constexpr int kTimes = 400;
  for (uint64_t time = 0; time < kTimes; ++time) {
    Moment first("m", MomentType::kSigned8, kMomentBlock);
    first.encode(0, kMomentBlock, values.data(), random_bits(time).data());
    const auto made = decoded(first);
    for (size_t i = 1; i < made.size(); ++i) {
      EXPECT_TRUE(made[i] == 0 || (made[i] > 0) == (values[i] > 0));
      sum += std::abs(made[i]) / 0x1p-18;
    }
  }
  // Each is the lowest level, above 2^-16 or so, or zero: a standard deviation of at most 4.
  EXPECT_NEAR(sum / (255 * kTimes), 1, 5 * 4 / std::sqrt(255.0 * kTimes));
}

TEST(Moment8, ZerosAndTinyBlocks) {
  for (const MomentType type : {MomentType::kUnsigned8, MomentType::kSigned8}) {
    Moment moment("m", type, kMomentBlock);
    std::vector<float> values(kMomentBlock);
    moment.encode(0, kMomentBlock, values.data(), random_bits(1).data());
    EXPECT_EQ(decoded(moment), values);
    for (float& x : values) x = 3e-41f;  // subnormal
    moment.encode(0, kMomentBlock, values.data(), random_bits(1).data());
    for (const float x : decoded(moment)) EXPECT_LE(x, 0x1p-129f);
  }
}

TEST(Moment8, LastBlockMayBeShort) {
  Moment moment("m", MomentType::kSigned8, kMomentBlock + 3);
  const std::vector<float> values{1, -2, 0.5f};
  moment.encode(kMomentBlock, 3, values.data(), random_bits(1).data());
  EXPECT_EQ(moment.at(kMomentBlock + 1), -2);
  EXPECT_EQ(moment.at(0), 0);
  std::vector<StateArray> arrays;
  moment.append_arrays(arrays);
  ASSERT_EQ(arrays.size(), 2u);
  EXPECT_EQ(arrays[0].elements, kMomentBlock + 3);
  EXPECT_EQ(arrays[1].name, "m.base");
  EXPECT_EQ(arrays[1].elements, 2);
}

// ---- in training

// Least squares in 64 unknowns of very different scales, by gradients of a few examples at a time.
// Returns the loss, averaged over each tenth of the steps.
std::vector<double> losses(OptimizerKind kind, int steps) {
  constexpr size_t kWidth = 64, kBatch = 8;
  std::vector<float> value(kWidth), grad(kWidth), target(kWidth);
  for (size_t k = 0; k < kWidth; ++k) target[k] = CounterRng(1).normal(k);
  const Parameter p{.name = "w", .value = value, .grad = grad, .rows = kWidth};
  const auto optimizer = make_optimizer({.kind = kind, .weight_decay = 0}, {&p, 1});
  Executor ex(best_kernels(), 1);
  std::vector<double> tenths(10);
  for (int step = 0; step < steps; ++step) {
    double loss = 0;
    std::fill(grad.begin(), grad.end(), 0.0f);
    for (size_t b = 0; b < kBatch; ++b) {
      const CounterRng rng(2, static_cast<uint64_t>(step) * kBatch + b);
      std::vector<float> x(kWidth);
      float error = 0.1f * rng.normal(1000);
      for (size_t k = 0; k < kWidth; ++k) {
        x[k] = rng.normal(k) * std::exp2(-static_cast<float>(k % 8));
        error += x[k] * (value[k] - target[k]);
      }
      for (size_t k = 0; k < kWidth; ++k) grad[k] += error * x[k] / kBatch;
      loss += 0.5 * error * error / kBatch;
    }
    optimizer->step({&p, 1}, 3e-3, ex);
    tenths[static_cast<size_t>(step * 10 / steps)] += loss * 10 / steps;
  }
  return tenths;
}

// The second moment is off by a quarter here and there, at random, which makes steps larger by 3 %
// on average: where the loss falls this fast, the curve is that much ahead.
TEST(Moment8, TrainsAsF32Does) {
  const std::vector<double> full = losses(OptimizerKind::kAdamW, 2000);
  const std::vector<double> small = losses(OptimizerKind::kAdamW8, 2000);
  EXPECT_LT(full[9], full[0] / 50);
  for (size_t i = 0; i < full.size(); ++i) EXPECT_NEAR(small[i] / full[i], 1, 0.2) << i;
}

// The gradient falls to a tenth: the second moment follows, though a step changes it by a
// thousandth and neighbouring codes are 1/8 apart.
TEST(Moment8, SecondMomentFollowsSlowly) {
  std::vector<float> value(kMomentBlock), grad(kMomentBlock, 1.0f);
  const Parameter p{.name = "w", .value = value, .grad = grad, .rows = kMomentBlock};
  const auto optimizer = make_optimizer({.kind = OptimizerKind::kAdamW8}, {&p, 1});
  Executor ex(best_kernels(), 1);
  for (int step = 0; step < 1000; ++step) optimizer->step({&p, 1}, 1e-3, ex);
  std::fill(grad.begin(), grad.end(), 0.1f);
  grad[0] = 1;  // keeps the block's scale
  for (int step = 0; step < 3000; ++step) optimizer->step({&p, 1}, 1e-3, ex);
  Moment second("exp_avg_sq.w", MomentType::kUnsigned8, kMomentBlock);
  std::vector<StateArray> arrays;
  second.append_arrays(arrays);
  for (const StateArray& to : arrays)
    for (const StateArray& from : optimizer->state())
      if (from.name == to.name) std::copy(from.bytes.begin(), from.bytes.end(), to.bytes.begin());
  double mean = 0;
  for (int64_t i = 1; i < kMomentBlock; ++i) mean += second.at(i) / (kMomentBlock - 1.0);
  const double after = (1 - std::pow(0.999, 1000)) * std::pow(0.999, 3000);
  const double expected = after + 0.01 * (1 - std::pow(0.999, 3000));
  EXPECT_NEAR(mean / expected, 1, 0.1);
}

}  // namespace
}  // namespace lapidary
