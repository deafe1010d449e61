#include "train/update_cosine.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "gemma/low_rank.h"
#include "train/full_weights.h"

namespace lapidary {
namespace {

AlignedVector<float> drawn(int64_t size, uint64_t stream) {
  const CounterRng rng(11, stream);
  AlignedVector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return values;
}

constexpr int64_t kRows = 6, kCols = 9;

// A matrix of f32 that a tape tracks.
struct Dense {
  AlignedVector<float> value = AlignedVector<float>(kRows * kCols);
  AlignedVector<float> grad = drawn(kRows * kCols, 1);
  Tape tape;
  TrainedMatrix matrix{.name = "w", .rows = kRows, .cols = kCols, .value = value, .grad = grad};

  Dense() { tape.track(value.data(), std::ssize(value), grad.data()); }
  double cosine(const std::function<void()>& spoil, const std::function<void()>& step) {
    const std::vector<TrainedMatrix> matrices{matrix};
    const std::vector<const float*> weights{value.data()};
    UpdateCosines update(matrices, weights, tape);
    update.before_step();
    spoil();
    step();
    ThreadPool pool(1);
    return update.after_step(pool)[0];
  }
};

TEST(UpdateCosine, IsOneForPlainDescentAndZeroAcross) {
  Dense down;
  EXPECT_NEAR(down.cosine([] {},
                          [&] {
                            for (size_t i = 0; i < down.value.size(); ++i)
                              down.value[i] -= 0.5f * down.grad[i];
                          }),
              1, 1e-12);
  Dense up;
  EXPECT_NEAR(up.cosine([] {}, [&] { up.value = up.grad; }), -1, 1e-12);
  Dense across;
  EXPECT_NEAR(across.cosine([] {},
                            [&] {
                              across.value[0] = across.grad[1];
                              across.value[1] = -across.grad[0];
                            }),
              0, 1e-12);
  Dense still;
  EXPECT_TRUE(std::isnan(still.cosine([] {}, [] {})));
}

TEST(UpdateCosine, OfProjectedGradientsIsByTheWholeOne) {
  const auto run = [](bool projected) {
    Dense d;
    d.matrix.projected = projected;
    const AlignedVector<float> whole = d.grad;
    return d.cosine([&] { std::fill_n(d.grad.begin(), kCols, 0.0f); },
                    [&] {
                      for (size_t i = 0; i < whole.size(); ++i) d.value[i] = -whole[i];
                    });
  };
  EXPECT_NEAR(run(true), 1, 1e-12);
  EXPECT_LT(run(false), 0.99);
}

TEST(UpdateCosine, OfFactorsIsThatOfTheirProduct) {
  AdapterMatrix m{.target = "w", .rank = 2, .scale = 3};
  m.a = drawn(2 * kCols, 2);
  m.b = drawn(2 * kRows, 3);
  AlignedVector<float> stored(kRows * kCols);
  const std::vector<TrainedMatrix> matrices{
      {.name = "w", .rows = kRows, .cols = kCols, .factors = &m}};
  const std::vector<const float*> weights{stored.data()};
  Tape tape;
  const Eigen::MatrixXd before = m.scale * matrix_b(m) * matrix_a(m);
  const AlignedVector<float> g = drawn(kRows * kCols, 4);
  {
    UpdateCosines update(matrices, weights, tape);
    float* made = tape.gradient(stored.data());
    ASSERT_NE(made, nullptr);
    for (size_t i = 0; i < g.size(); ++i) made[i] += g[i];
    update.before_step();
    m.a[3] += 0.25f;
    m.b[4] -= 0.5f;  // which meets it
    ThreadPool pool(2);
    const double got = update.after_step(pool)[0];

    const Eigen::MatrixXd step = m.scale * matrix_b(m) * matrix_a(m) - before;
    double dot = 0, norm = 0;
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < kCols; ++j) {
        const double x = g[static_cast<size_t>(i * kCols + j)];
        dot -= x * step(i, j);
        norm += x * x;
      }
    EXPECT_NEAR(got, dot / (step.norm() * std::sqrt(norm)), 1e-12);
  }
  EXPECT_EQ(tape.gradient(stored.data()), nullptr);  // as before
}

// The gradients of matrices that stay as they are stored, against those of the same ones as f32.
class FrozenGradientTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FrozenGradientTest, IsThatOfTheDecodedMatrix) {
  const auto folder = std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden" / GetParam();
  const std::vector<Token> tokens{2, 5, 9, 11, 4, 7}, targets{5, 9, 11, 4, 7, kNoTarget};
  const std::vector<int64_t> lengths{std::ssize(tokens)};
  const Documents documents{tokens, targets, lengths};
  Executor ex(best_kernels(), 1);
  const std::string name = "model.layers.1.mlp.up_proj";

  Model trained = load_model(folder);
  FullWeights weights(trained.config, trained.weights,
                      [&](std::string_view n) { return n == name + ".weight"; });
  Backprop full(ex, trained.config, trained.weights, 6, 0);
  weights.track(full.tape());
  full.run(documents, 0.2f);
  const Parameter& p = weights.parameters()[0];

  Model frozen = load_model(folder);
  const Linear& stored = frozen.weights.layers[1].up_proj;
  ASSERT_TRUE(stored.quantized() || stored.dtype != DType::kF32);
  Backprop pass(ex, frozen.config, frozen.weights, 6, 0);
  const std::vector<TrainedMatrix> matrices{{.name = name, .rows = p.rows, .cols = p.cols}};
  const std::vector<const float*> addresses{values_of(stored)};
  const UpdateCosines update(matrices, addresses, pass.tape());
  pass.run(documents, 0.2f);
  const float* got = pass.tape().gradient(addresses[0]);
  double norm = 0;
  for (size_t i = 0; i < p.grad.size(); ++i) {
    ASSERT_EQ(got[i], p.grad[i]) << i;
    norm += double{got[i]} * got[i];
  }
  EXPECT_GT(norm, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, FrozenGradientTest,
                         ::testing::Values("gemma2-gqa", "mlx-4bit-g64", "mlx-3bit-g64"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lapidary
