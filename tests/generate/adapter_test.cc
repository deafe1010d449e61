// Models with adapters at run time, against what PEFT and MLX-LM computed.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "io/safetensors.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kAdapters = kGolden / "adapters";

template <class T>
std::vector<T> values(const fs::path& path, const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const TensorView& view = *file.find(name);
  std::vector<T> out(static_cast<size_t>(view.elements()));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

std::vector<float> logits(const std::shared_ptr<const Engine>& engine, size_t count) {
  const auto ids = values<int32_t>(engine->folder() / "golden.safetensors", "ids");
  Session session(engine);
  std::vector<float> all;
  session.score(std::span(ids).first(count), [&](int64_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
  });
  return all;
}

std::shared_ptr<const Engine> load(const std::string& model, std::vector<AdapterUse> adapters,
                                   Compute compute = Compute::kExact, int threads = 1) {
  return Engine::load(kGolden / model,
                      {.compute = compute, .threads = threads, .adapters = std::move(adapters)});
}

// Root mean square of the difference over the spread of b; infinite where one is no number.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, mean = 0, variance = 0;
  for (const float x : b) mean += x / static_cast<double>(b.size());
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    variance += std::pow(b[i] - mean, 2);
  }
  const double ratio = std::sqrt(difference / variance);
  return std::isfinite(ratio) ? ratio : INFINITY;
}

TEST(Adapters, LogitsAreThoseOfPeftAndMlx) {
  for (const auto& [name, model] : {std::pair{"plain", "gemma3-v5"},
                                    {"patterns", "gemma3-v5"},
                                    {"multimodal", "gemma3-mm"},
                                    {"dora", "gemma3-v5"},
                                    {"mlx", "mlx-4bit-g64"},
                                    {"mlx-dora", "mlx-4bit-g64"}}) {
    const auto expected = values<float>(kAdapters / "logits.safetensors", name);
    const auto without = load(model, {});
    const size_t tokens = expected.size() / static_cast<size_t>(without->config().vocab_size);
    const auto engine = load(model, {{kAdapters / name}});
    // Both compute in f32, in another order: the bound of golden_test.cc.
    EXPECT_LT(distance(logits(engine, tokens), expected), 1e-5) << name;
    EXPECT_GT(distance(logits(without, tokens), expected), 1e-2) << name << " does nothing";
    // Rounded activations and a cache in bf16.
    EXPECT_LT(distance(logits(load(model, {{kAdapters / name}}, Compute::kFast), tokens), expected),
              5e-2)
        << name;
  }
}

TEST(Adapters, AddUpAndAreScaled) {
  const AdapterUse half{kAdapters / "plain", 0.5}, whole{kAdapters / "plain", 1};
  const auto once = logits(load("gemma3-v5", {whole}), 24);
  EXPECT_LT(distance(logits(load("gemma3-v5", {half, half}), 24), once), 1e-5);
  EXPECT_EQ(logits(load("gemma3-v5", {{kAdapters / "plain", 0}}), 24),
            logits(load("gemma3-v5", {}), 24));
  const auto both = logits(load("gemma3-v5", {whole, {kAdapters / "other"}}), 24);
  EXPECT_GT(distance(both, once), 1e-2);
}

TEST(Adapters, ThreadsChangeNoBit) {
  for (const Compute compute : {Compute::kFast, Compute::kExact})
    EXPECT_EQ(logits(load("gemma3-v5", {{kAdapters / "plain"}}, compute, 1), 24),
              logits(load("gemma3-v5", {{kAdapters / "plain"}}, compute, 3), 24));
}

TEST(Adapters, AreInTheFingerprintAndTheForecast) {
  const auto fingerprint = [](std::vector<AdapterUse> adapters) {
    return load("gemma3-v5", std::move(adapters))->fingerprint();
  };
  const AdapterUse plain{kAdapters / "plain"};
  const uint64_t with = fingerprint({plain});
  EXPECT_NE(with, fingerprint({}));
  EXPECT_NE(with, fingerprint({{kAdapters / "other"}}));
  EXPECT_NE(with, fingerprint({{kAdapters / "plain", 0.5}}));
  EXPECT_NE(with, fingerprint({plain, plain}));
  EXPECT_EQ(with, fingerprint({plain}));

  // A session of the model without the adapter is not one of the model with it.
  ScratchFolder folder;
  Session session(load("gemma3-v5", {}));
  session.append(std::vector<Token>{2, 5, 9});
  session.snapshot(folder.path() / "s");
  EXPECT_NE(error_of([&] { Session::restore(load("gemma3-v5", {plain}), folder.path() / "s"); }),
            "no error");

  const MemoryForecast forecast = load("gemma3-v5", {plain})->forecast(0);
  const int64_t floats = 7 * 4 * ((48 + 64) * 2 + (48 + 16) * 2 + (48 + 64) * 3);
  EXPECT_GE(forecast.adapters, floats * 4);
  EXPECT_EQ(forecast.total(), load("gemma3-v5", {})->forecast(0).total() + forecast.adapters);
}

TEST(Adapters, OfAnotherBaseAreNamed) {
  const std::string error =
      error_of([] { load("gemma2-gqa", {{kAdapters / "plain"}}); }, kAdapters.string());
  EXPECT_TRUE(error.starts_with("/plain: the adapter does not fit this model: model.layers.0."))
      << error;
  EXPECT_EQ(error_of(
                [] {
                  load("gemma2-gqa", {{kAdapters / "plain", NAN}});
                },
                kAdapters.string()),
            "/plain: strength nan is not a number");
}

}  // namespace
}  // namespace lapidary
