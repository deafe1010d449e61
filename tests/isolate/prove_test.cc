// Isolation on every kind of layer and of cache.
#include "isolate/prove.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "small_example.h"

namespace lapidary {
namespace {

struct Case {
  const char* model;
  KvType kv_type;
  Compute compute;
};

class Prove : public ::testing::TestWithParam<Case> {};

TEST_P(Prove, AllStatementsHold) {
  const auto [model, kv_type, compute] = GetParam();
  const std::filesystem::path source(LAPIDARY_SOURCE_DIR);
  const auto engine =
      Engine::load(source / model, {.compute = compute, .kv_type = kv_type, .threads = 2});
  // Longer than a window and a block, and of different lengths.
  const CounterRng rng(7);
  std::vector<std::vector<Token>> contexts;
  for (const size_t length : {90, 75, 40}) {
    std::vector<Token>& ids = contexts.emplace_back(1, 2);
    while (ids.size() < length)
      ids.push_back(static_cast<Token>(rng.bits(1000 * length + ids.size()) %
                                       static_cast<uint64_t>(engine->config().vocab_size)));
  }
  const std::vector<IsolationCheck> checks = prove_isolation(engine, contexts);
  EXPECT_EQ(checks.size(), 6u);
  for (const IsolationCheck& check : checks)
    EXPECT_TRUE(check.holds()) << check.statement << ": " << check.difference << ", allowed "
                               << check.most;
}

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const char* model :
       {"tests/golden/gemma1-mqa", "tests/golden/gemma2-gqa", "tests/golden/gemma3-v5"})
    for (const KvType type : kKvTypes) list.push_back({model, type, Compute::kExact});
  list.push_back({"models/tiny", KvType::kBF16, Compute::kFast});
  list.push_back({"models/tiny", KvType::kQ8, Compute::kFast});
  return list;
}

INSTANTIATE_TEST_SUITE_P(Isolation, Prove, ::testing::ValuesIn(cases()), [](const auto& of) {
  std::string name = std::string(of.param.model) + "_" + std::string(name_of(of.param.kv_type));
  for (char& c : name)
    if (c == '/' || c == '-') c = '_';
  return name;
});

}  // namespace
}  // namespace lapidary
