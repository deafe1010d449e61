// Several timelines in one cache: each is what it would be alone.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "base/rng.h"

namespace lapidary {
namespace {

std::vector<Token> ids(const Engine& engine, uint64_t seed, size_t count) {
  const CounterRng rng(seed);
  std::vector<Token> list;
  for (size_t i = 0; i < count; ++i)
    list.push_back(
        static_cast<Token>(rng.bits(i) % static_cast<uint64_t>(engine.config().vocab_size)));
  return list;
}

// Chunks of uneven length in turn, across the window and the blocks of the cache.
TEST(LabelledSession, IsASessionForEachLabel) {
  for (const char* model : {"gemma1-mqa", "gemma2-gqa", "gemma3-v5"}) {
    const auto engine =
        Engine::load(std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden" / model,
                     {.compute = Compute::kExact, .threads = 2});
    Session shared = Session::labelled(engine), first(engine), second(engine);
    const std::vector<Token> a = ids(*engine, 1, 250), b = ids(*engine, 2, 200);
    size_t at_a = 0, at_b = 0;
    for (size_t length = 1; at_a < a.size() || at_b < b.size(); length = length * 5 % 67 + 1) {
      for (const int label : {7, 3}) {
        const std::vector<Token>& all = label == 7 ? a : b;
        size_t& at = label == 7 ? at_a : at_b;
        const size_t n = std::min(length, all.size() - at);
        if (n == 0) continue;
        const std::span<const Token> part(all.data() + at, n);
        at += n;
        const StepItem item{&shared, part, label};
        engine->step({&item, 1});
        const std::span<const float> alone = (label == 7 ? first : second).append(part);
        double largest = 0, off = 0;
        for (size_t v = 0; v < alone.size(); ++v) {
          largest = std::max(largest, std::abs(double{alone[v]}));
          off = std::max(off, std::abs(double{alone[v]} - shared.logits()[v]));
        }
        ASSERT_LE(off, 1e-5 * largest) << model << " label " << label << " at " << at;
      }
    }
    EXPECT_EQ(shared.length(), 450);
  }
}

TEST(LabelledSession, ForksGoTheirOwnWays) {
  const auto engine =
      Engine::load(std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5",
                   {.compute = Compute::kExact, .threads = 1});
  Session shared = Session::labelled(engine);
  const std::vector<Token> a = ids(*engine, 1, 80), b = ids(*engine, 2, 80), more = {5, 6, 7};
  for (const auto& [tokens, label] : {std::pair(&a, 0), std::pair(&b, 1)}) {
    const StepItem item{&shared, *tokens, label};
    engine->step({&item, 1});
  }
  Session one = shared.fork(), two = shared.fork();
  const StepItem other{&one, more, 1};
  engine->step({&other, 1});
  const StepItem items[] = {{&one, more, 0}, {&two, more, 0}};
  engine->step(items);
  // What label 1 got in one of them does not show in label 0.
  ASSERT_EQ(one.logits().size(), two.logits().size());
  for (size_t v = 0; v < one.logits().size(); ++v)
    ASSERT_NEAR(one.logits()[v], two.logits()[v], 1e-5) << v;
}

}  // namespace
}  // namespace lapidary
