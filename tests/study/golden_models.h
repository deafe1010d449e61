// What the tests of studies share: the small models with activations of the reference
// (tests/golden/README.md), and the built-in one.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"

#include "io/safetensors.h"

namespace lapidary {

inline const std::filesystem::path kGolden =
    std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
inline const std::filesystem::path kTiny =
    std::filesystem::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

inline std::vector<float> floats(const TensorView& tensor) {
  std::vector<float> out(tensor.bytes.size() / sizeof(float));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

// A model, and the tokens whose activations the reference kept.
class GoldenModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden.emplace(SafetensorsFile::open(kGolden / GetParam() / "activations.safetensors"));
    engine = Engine::load(kGolden / GetParam(), {.compute = Compute::kExact, .threads = 2});
    const TensorView& tensor = *golden->find("ids");
    ids.resize(tensor.bytes.size() / sizeof(Token));
    std::memcpy(ids.data(), tensor.bytes.data(), tensor.bytes.size());
  }

  std::optional<SafetensorsFile> golden;
  std::shared_ptr<const Engine> engine;
  std::vector<Token> ids;
};

// Of one of each family: for INSTANTIATE_TEST_SUITE_P.
inline const auto kGoldenModels = ::testing::Values("gemma1-mqa", "gemma2-gqa", "gemma3-v5");
inline std::string golden_name(const ::testing::TestParamInfo<const char*>& model) {
  std::string name = model.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace lapidary
