// What a timeline promises: whatever way it came to hold its tokens, what follows is the same bits.
#include "lapidary/session.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"

#include "generate/token_runs.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";

::testing::AssertionResult same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " and " << b.size();
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return ::testing::AssertionFailure() << "at " << i << ": " << a[i] << " and " << b[i];
  return ::testing::AssertionSuccess();
}

struct Case {
  std::string model;
  KvType kv_type;

  std::string name() const { return model + "_" + std::string(name_of(kv_type)); }
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name(); }
};

// Both kinds of layers, windows of 16, and a type of cache each.
class SessionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    engine =
        Engine::load(kGolden / GetParam().model, {.kv_type = GetParam().kv_type, .threads = 2});
    ids = random_tokens(600, engine->config().vocab_size);
  }
  std::span<const Token> first(size_t n) const { return std::span(ids).first(n); }
  std::span<const Token> part(size_t from, size_t to) const {
    return std::span(ids).subspan(from, to - from);
  }
  // The logits after ids[0, n), the tokens given at once to a new session.
  std::vector<float> straight(size_t n) const {
    Session session(engine, 1000);
    return copy(session.append(first(n)));
  }

  std::shared_ptr<const Engine> engine;
  std::vector<Token> ids;
};

INSTANTIATE_TEST_SUITE_P(Models, SessionTest,
                         ::testing::Values(Case{"gemma2-gqa", KvType::kF32},
                                           Case{"gemma3-v5", KvType::kBF16},
                                           Case{"mlx-4bit-g64", KvType::kQ8},
                                           Case{"gemma3-v5", KvType::kQ4}),
                         [](const auto& model) {
                           std::string name = model.param.name();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(SessionTest, LettingGoOfWhatNoWindowSeesChangesNoBit) {
  Session session(engine, 1000);
  // Past the second seam of attention's pieces, where a window's first piece is not piece 0.
  constexpr size_t kLength = 2 * 256 + 40;
  for (size_t i = 0; i < kLength; ++i) session.append(part(i, i + 1));
  EXPECT_TRUE(same_bits(session.logits(), straight(kLength)));
  // Sliding layers of 16 hold at most 3 blocks of the 9 that full layers have.
  Session whole(engine, 1000);
  whole.append(first(kLength));
  EXPECT_EQ(session.kv_bytes(), whole.kv_bytes());
  EXPECT_LE(session.kv_bytes(), engine->forecast(kLength).kv_cache);
}

TEST_P(SessionTest, AForkGoesOnAloneAndLeavesItsOriginAsItWas) {
  for (size_t at : {1, 63, 64, 65, 200}) {
    Session origin(engine, 1000);
    origin.append(first(at));
    Session fork = origin.fork();
    EXPECT_TRUE(same_bits(fork.logits(), origin.logits()));
    const std::vector<Token> other = random_tokens(70, engine->config().vocab_size, 9);
    fork.append(other);
    EXPECT_TRUE(same_bits(origin.append(part(at, at + 90)), straight(at + 90))) << at;
    std::vector<Token> joined(ids.begin(), ids.begin() + static_cast<int64_t>(at));
    joined.insert(joined.end(), other.begin(), other.end());
    joined.push_back(3);
    Session fresh(engine, 1000);
    EXPECT_TRUE(same_bits(fork.append(std::span(joined).last(1)), fresh.append(joined))) << at;
  }
}

TEST_P(SessionTest, AnyTrimGoesOnAsIfTheRestHadNeverBeen) {
  for (size_t length : {10, 130, 300})
    for (size_t keep : {0, 1, 5, 9, 100, 129, 240, 299}) {
      if (keep >= length) continue;
      Session session(engine, 1000);
      session.append(first(length));
      const int64_t recomputed = session.trim(static_cast<int64_t>(keep));
      EXPECT_TRUE(session.logits().empty());
      EXPECT_EQ(session.length(), static_cast<int64_t>(keep));
      // Taking back up to a block of tokens never needs the model.
      if (length - keep <= 48) {
        EXPECT_EQ(recomputed, 0) << length << " to " << keep;
      }
      EXPECT_TRUE(same_bits(session.append(part(keep, keep + 50)), straight(keep + 50)))
          << length << " to " << keep;
    }
}

TEST_P(SessionTest, TrimmingAForkLeavesTheOriginAsItWas) {
  Session origin(engine, 1000);
  origin.append(first(100));
  Session fork = origin.fork();
  fork.trim(80);
  fork.append(random_tokens(20, engine->config().vocab_size, 5));
  EXPECT_TRUE(same_bits(origin.append(part(100, 110)), straight(110)));
}

TEST_P(SessionTest, RestoreThenContinueEqualsNeverStopped) {
  const ScratchFolder scratch;
  const fs::path file = scratch.path() / "session";
  for (size_t at : {0, 1, 64, 77, 300}) {
    Session session(engine, 1000);
    session.append(first(at));
    session.snapshot(file);
    Session restored = Session::restore(engine, file, 1000);
    EXPECT_EQ(restored.length(), static_cast<int64_t>(at));
    EXPECT_EQ(restored.kv_bytes(), session.kv_bytes());
    EXPECT_TRUE(same_bits(restored.append(part(at, at + 60)), straight(at + 60))) << at;
    EXPECT_TRUE(same_bits(session.append(part(at, at + 60)), restored.logits()));
  }
}

TEST_P(SessionTest, SyncComputesOnlyWhatIsNew) {
  Session session(engine, 1000);
  EXPECT_EQ(session.sync(first(100)), 100);
  EXPECT_EQ(session.sync(first(100)), 0);
  EXPECT_EQ(session.sync(first(120)), 20);
  EXPECT_TRUE(same_bits(session.logits(), straight(120)));
  std::vector<Token> changed(ids.begin(), ids.begin() + 110);
  changed.push_back(7);
  EXPECT_EQ(session.sync(changed), 1);
  EXPECT_EQ(session.sync(std::span(changed).first(105)), 1);  // the last token, for its logits
  EXPECT_TRUE(same_bits(session.logits(), straight(105)));
}

TEST_P(SessionTest, ABatchGivesEachSessionWhatItGetsAlone) {
  const std::vector<size_t> pasts{0, 3, 64, 200, 1}, news{1, 40, 1, 600, 7};
  std::vector<Session> together;
  std::vector<std::vector<Token>> timelines;
  std::vector<StepItem> items;
  for (size_t i = 0; i < pasts.size(); ++i) {
    timelines.push_back(random_tokens(static_cast<int64_t>(pasts[i] + news[i]),
                                      engine->config().vocab_size, 20 + i));
    together.emplace_back(engine, 1000);
    together[i].append(std::span(timelines[i]).first(pasts[i]));
  }
  for (size_t i = 0; i < pasts.size(); ++i)
    items.push_back({&together[i], std::span(timelines[i]).subspan(pasts[i])});
  engine->step(items);
  for (size_t i = 0; i < pasts.size(); ++i) {
    Session alone(engine, 1000);
    EXPECT_TRUE(same_bits(together[i].logits(), alone.append(timelines[i]))) << i;
  }
}

TEST_P(SessionTest, SessionsOfOneEngineMayRunFromSeveralThreads) {
  const auto expected = straight(90);
  std::vector<std::thread> threads;
  std::vector<std::vector<float>> got(3);
  for (auto& result : got)
    threads.emplace_back([&] {
      Session session(engine, 1000);
      for (size_t i = 0; i < 90; i += 9) session.append(part(i, i + 9));
      result = copy(session.logits());
    });
  for (auto& thread : threads) thread.join();
  for (const auto& result : got) EXPECT_TRUE(same_bits(result, expected));
}

TEST_P(SessionTest, WhatDoesNotFitIsRefusedBeforeAnythingIsDone) {
  Session session(engine, 50);
  session.append(first(40));
  EXPECT_EQ(error_of([&] { session.append(part(40, 57)); }),
            "57 tokens do not fit the context of 50: 7 too many");
  const Token bad = engine->config().vocab_size;
  EXPECT_EQ(
      error_of([&] {
        session.append({&bad, 1});
      }),
      "token id " + std::to_string(bad) + " is not in the vocabulary of " + std::to_string(bad));
  EXPECT_TRUE(same_bits(session.append(part(40, 50)), straight(50)));
  EXPECT_EQ(error_of([&] { session.append(part(50, 51)); }),
            "51 tokens do not fit the context of 50: 1 too many");
}

TEST_P(SessionTest, ATapStaysWithItsSession) {
  Session session(engine, 1000);
  int64_t calls = 0;
  session.set_tap([&](const Activation&) { ++calls; });
  session.append(first(200));
  EXPECT_GT(calls, 0);
  calls = 0;
  session.fork().append(part(200, 201));
  EXPECT_EQ(calls, 0);
  EXPECT_GT(session.trim(1), 0);  // beyond what the windows kept: read anew, by a new cache
  calls = 0;
  session.append(part(1, 3));
  EXPECT_GT(calls, 0);
}

TEST_P(SessionTest, AStopRequestLeavesTheSessionAtAChunk) {
  Session session(engine, 2000);
  const std::vector<Token> many = random_tokens(1200, engine->config().vocab_size);
  std::stop_source stop;
  Watch watch{.progress = [&](int64_t, int64_t) { stop.request_stop(); }, .stop = stop.get_token()};
  EXPECT_EQ(error_of([&] { session.append(many, watch); }), "interrupted");
  EXPECT_GT(session.length(), 0);
  EXPECT_LT(session.length(), 1200);
  session.append(std::span(many).subspan(static_cast<size_t>(session.length())));
  Session fresh(engine, 2000);
  EXPECT_TRUE(same_bits(session.logits(), fresh.append(many)));
}

TEST(Snapshot, OfAnotherModelOrCacheOrDamagedIsRefused) {
  const ScratchFolder scratch;
  const fs::path file = scratch.path() / "snapshot";
  const auto engine = Engine::load(kGolden / "mlx-4bit-g64", {});
  Session session(engine);
  session.append(random_tokens(30, engine->config().vocab_size));
  session.snapshot(file);

  const auto other = Engine::load(kGolden / "mlx-6bit-g32", {});
  EXPECT_NE(error_of([&] { Session::restore(other, file); }).find("saved with another model"),
            std::string::npos);
  const auto wide = Engine::load(kGolden / "mlx-4bit-g64", {.kv_type = KvType::kF32});
  EXPECT_NE(error_of([&] { Session::restore(wide, file); }).find("dtype BF16, expected F32"),
            std::string::npos);
  EXPECT_NE(error_of([&] { Session::restore(engine, file, 20); }).find("10 too many"),
            std::string::npos);
  fs::resize_file(file, fs::file_size(file) - 100);
  EXPECT_NE(error_of([&] { Session::restore(engine, file); }).find(file.string()),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              Session::restore(engine, kGolden / "mlx-4bit-g64/model.safetensors");
            }).find("not a saved session"),
            std::string::npos);
}

TEST(EngineLoad, NamesWhatIsWrong) {
  EXPECT_EQ(error_of([] { Engine::load("/nowhere", {}); }),
            "/nowhere: no such file or folder; a model is a folder with config.json and "
            "*.safetensors, or a GGUF file");
  const auto engine = Engine::load(kGolden / "gemma1-mha", {});
  EXPECT_NE(error_of([&] { engine->tokenizer(); }).find("no tokenizer.json and no tokenizer.model"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              Engine::load(kGolden / "gemma1-mha", {.context = int64_t{1} << 40});
            }).find("of memory are available"),
            std::string::npos);
}

}  // namespace
}  // namespace lapidary
