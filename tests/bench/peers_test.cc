#include "bench/peers.h"

#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "bench/reports.h"

namespace lapidary {
namespace {

constexpr PeerOptions kQuick{.prompt = 5, .gen = 3, .repetitions = 2, .pause = 0};

std::shared_ptr<const Engine> tiny() {
  static const auto engine = Engine::load(LAPIDARY_SOURCE_DIR "/models/tiny", {.threads = 1});
  return engine;
}

// A peer that loads, and gives the same answer to every request; as the shell would write it.
PeerCommand answering(const std::string& answer, const std::string& load) {
  return {"fake",
          fmt::format("sh -c 'echo noise; echo \"{}\"; while read -r x; do echo \"{}\"; done'",
                      load, answer)};
}
std::string quoted(const std::string& json) {
  std::string text;
  for (const char c : json) text += c == '"' ? "\\\"" : std::string(1, c);
  return text;
}
const std::string kAnswer = quoted(R"({"ttft_s": 0.5, "decode_s": 0.25, "tokens": [7, 8, 9]})");
const std::string kLoaded = quoted(R"({"load_s": 1.5})");

std::vector<PeerResult> measure(const std::string& answer, const std::string& load = kLoaded) {
  const PeerCommand peer = answering(answer, load);
  return measure_peers(tiny(), 0.1, {&peer, 1}, kQuick);
}

TEST(Peers, ResultsAreLapidarysAndThePeers) {
  const std::vector<PeerResult> results = measure(kAnswer);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].name, "lapidary");
  EXPECT_EQ(results[0].runs.size(), 2u);
  EXPECT_EQ(results[0].runs[0].tokens.size(), 3u);
  EXPECT_EQ(results[0].runs[0].tokens, results[0].runs[1].tokens);
  EXPECT_EQ(results[1].name, "fake");
  EXPECT_EQ(results[1].load_seconds, 1.5);
  ASSERT_EQ(results[1].runs.size(), 2u);
  EXPECT_EQ(results[1].runs[1].first_token_seconds, 0.5);
  EXPECT_EQ(results[1].runs[1].decode_seconds, 0.25);
  EXPECT_EQ(results[1].runs[1].tokens, (std::vector<Token>{7, 8, 9}));
  // Of each process its own: a shell is far smaller than an engine.
  EXPECT_GT(results[1].peak_rss_bytes, 0);
  EXPECT_LT(results[1].peak_rss_bytes, results[0].peak_rss_bytes);
}

// The message of what measuring such a peer ends with.
std::string complaint(const std::string& answer, const std::string& load = kLoaded) {
  try {
    measure(answer, load);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    return e.what();
  }
  return "none";
}

TEST(Peers, OneThatDoesNotKeepToTheRulesIsNamed) {
  EXPECT_EQ(complaint(kAnswer, quoted(R"({"seconds": 1})")),
            "peer fake: no number 'load_s' in {\"seconds\":1}");
  EXPECT_EQ(complaint("{nonsense"), "peer fake: '{nonsense' is not JSON");
  EXPECT_EQ(complaint(quoted(R"({"ttft_s": 1, "decode_s": 1, "tokens": [7]})")),
            "peer fake: 1 tokens made, expected 3");
  const PeerCommand absent{"absent", "/nonexistent/peer 2>/dev/null"};
  try {
    measure_peers(tiny(), 0, {&absent, 1}, kQuick);
    ADD_FAILURE() << "no complaint";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "peer absent: ended before it answered");
  }
}

TEST(Peers, AStopRequestEndsTheWaitForAPeer) {
  const PeerCommand silent{"silent", "sleep 60"};
  std::stop_source stop;
  const std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  try {
    measure_peers(tiny(), 0, {&silent, 1}, kQuick, Watch{{}, stop.get_token()});
    ADD_FAILURE() << "not stopped";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
  }
}

TEST(Peers, ReportCountsTheTokensThatAgreeAtTheStart) {
  const std::vector<PeerResult> results = {
      {"lapidary", 0.5, 1 << 20, {{1, 0.5, {1, 2, 3}}, {2, 0.5, {1, 2, 3}}, {4, 0.5, {1, 2, 3}}}},
      {"other", 2, 2 << 20, {{1, 1, {1, 5, 3}}, {1, 2, {1, 5, 3}}, {1, 9, {1, 5, 3}}}}};
  const PeerOptions options{.prompt = 10, .gen = 3, .repetitions = 3};
  const Report report = peers_report({"Acme", "abc", 1}, {}, options, results);
  using Row = std::vector<std::string>;
  EXPECT_EQ(report.table.rows[0],
            (Row{"lapidary", "0.50", "2.00", "5.00", "4.00", "1 MiB", "3/3"}));
  EXPECT_EQ(report.table.rows[1], (Row{"other", "2.00", "1.00", "10.00", "1.00", "2 MiB", "1/3"}));
  EXPECT_EQ(report.records[1]["tokens_agreeing"], 1);
  EXPECT_EQ(report.records[0]["samples_ttft_s"], (std::vector<double>{1, 2, 4}));
}

}  // namespace
}  // namespace lapidary
