// Models made by HF transformers against its own logits (tests/golden/README.md).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "io/safetensors.h"
#include "kernels/kernels.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";

template <class T>
std::vector<T> values(const SafetensorsFile& file, const char* name) {
  const TensorView* tensor = file.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  std::vector<T> out(tensor->bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor->bytes.data(), tensor->bytes.size());
  return out;
}

std::vector<std::string> golden_models() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGolden))
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Root mean square of a - b over the standard deviation of b.
double relative_rms(std::span<const float> a, std::span<const float> b) {
  double difference = 0, mean = 0, variance = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    mean += b[i];
  }
  mean /= static_cast<double>(b.size());
  for (float x : b) variance += std::pow(x - mean, 2);
  const double ratio = std::sqrt(difference / variance);
  return std::isnan(ratio) ? INFINITY : ratio;
}

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const SafetensorsFile file = SafetensorsFile::open(kGolden / GetParam() / "golden.safetensors");
    ids = values<int32_t>(file, "ids");
    expected = values<float>(file, "logits");
  }
  void TearDown() override { ::unsetenv("LAPIDARY_ISA"); }

  std::shared_ptr<const Engine> load(EngineOptions options) const {
    return Engine::load(kGolden / GetParam(), options);
  }
  static std::vector<float> score(const std::shared_ptr<const Engine>& engine,
                                  std::span<const Token> tokens) {
    Session session(engine);
    std::vector<float> all;
    session.score(tokens, [&](int64_t, std::span<const float> row) {
      all.insert(all.end(), row.begin(), row.end());
    });
    return all;
  }

  std::vector<Token> ids;
  std::vector<float> expected;  // [T, V]
};

INSTANTIATE_TEST_SUITE_P(Models, Golden, ::testing::ValuesIn(golden_models()),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(Golden, ExactLogitsAgreeWithTheReferenceOnEveryInstructionSet) {
  for (const Kernels* table : supported_kernels()) {
    ::setenv("LAPIDARY_ISA", std::string(table->isa).c_str(), 1);
    const auto engine = load({.compute = Compute::kExact, .threads = 2});
    const auto got = score(engine, ids);
    ASSERT_EQ(got.size(), expected.size());
    const double error = relative_rms(got, expected);
    RecordProperty("rms_" + std::string(table->isa), fmt::format("{:.2e}", error));
    // A few thousand roundings of 2^-24, of random sign, in a chain of layers: measured 3e-7 to
    // 6e-7. Any wrong step (a window off by one, a norm left out) is beyond 1e-3.
    EXPECT_LE(error, 1e-5) << table->isa;
  }
}

TEST_P(Golden, FastLogitsStayNearTheReference) {
  const auto engine = load({.compute = Compute::kFast, .threads = 2});
  const auto got = score(engine, ids);
  // K and V rounded to bf16 are off by up to 2^-9 of themselves; a few layers of that. Activations
  // before a quantised matrix are off by a uniform error of one step of 127 per largest value of
  // 256: for normal values, 3 / 127 / sqrt(12) = 0.7 % of their size; again a few of that.
  const bool quantized = engine->weight_format().find("affine") != std::string::npos ||
                         engine->weight_format() == "mixed";
  const double error = relative_rms(got, expected);
  RecordProperty("rms", fmt::format("{:.2e}", error));
  EXPECT_LE(error, quantized ? 3 * 0.007 : 4 * 0x1p-9);
}

TEST_P(Golden, OneByOneChunkedAndWholeGiveTheSameBits) {
  for (const Compute compute : {Compute::kExact, Compute::kFast}) {
    const auto engine = load({.compute = compute, .threads = 2});
    const auto whole = score(engine, ids);
    const auto vocab = static_cast<size_t>(engine->config().vocab_size);
    for (size_t chunk : {1, 2, 7, 16, 33}) {
      Session session(engine);
      for (size_t at = 0; at < ids.size(); at += chunk) {
        const auto part = std::span(ids).subspan(at, std::min(chunk, ids.size() - at));
        const auto logits = session.append(part);
        const float* row = whole.data() + (at + part.size() - 1) * vocab;
        ASSERT_EQ(std::memcmp(logits.data(), row, vocab * sizeof(float)), 0)
            << "chunk " << chunk << " at " << at;
      }
    }
  }
}

TEST_P(Golden, ThreadCountChangesNoBit) {
  const auto one = score(load({.threads = 1}), ids);
  for (int threads : {2, 3, 5}) {
    const auto many = score(load({.threads = threads, .threads_batch = 6 - threads}), ids);
    ASSERT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0) << threads;
  }
}

TEST(GoldenFiles, AllKindsAreThere) {
  EXPECT_GE(golden_models().size(), 15u);
}

}  // namespace
}  // namespace lapidary
