// Perplexity, divergences and their errors against what transformers and numpy make of the same
// models and tokens (tools/make_eval_golden.py).
#include <cmath>
#include <cstring>
#include <limits>
#include <stop_token>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/eval.h"
#include "lapidary/score.h"

#include "base/json.h"
#include "base/statistics.h"
#include "eval/estimate.h"
#include "eval/windows.h"
#include "generate/divergence.h"
#include "generate/logit_rows.h"
#include "io/safetensors.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = LAPIDARY_SOURCE_DIR;
const fs::path kGolden = kRoot / "tests/golden";

std::shared_ptr<const Engine> load(const fs::path& folder, Compute compute = Compute::kExact,
                                   int threads = 2) {
  return Engine::load(folder, {.compute = compute, .threads = threads});
}

EvalText text_of(const Json& golden) {
  return {golden["ids"].get<std::vector<Token>>(), golden["bos"].get<Token>()};
}

WindowOptions windows_of(const Json& golden) {
  return {.context = golden["context"], .stride = golden["stride"]};
}

// Logits of size 10 to 20 in f32, off by about 1e-6 of themselves on either side.
constexpr double kBound = 1e-4;

void expect_near(const Estimate& estimate, const Json& golden, const char* name) {
  const double value = golden[name]["value"], error = golden[name]["error"];
  EXPECT_NEAR(estimate.value, value, kBound * std::abs(value)) << name;
  ASSERT_TRUE(estimate.error) << name;
  EXPECT_NEAR(*estimate.error, error, kBound * error) << name;
}

TEST(Perplexity, InWindowsEqualsTheReference) {
  const Json golden = read_json_file(kGolden / "eval/perplexity.json");
  const EvalText text = text_of(golden);
  const Perplexity result = perplexity(load(kRoot / "models/tiny"), text, windows_of(golden));
  EXPECT_EQ(result.predicted, std::ssize(text.tokens));
  EXPECT_FALSE(result.interrupted);
  expect_near(result.nll, golden, "nll");
  expect_near(result.ppl, golden, "ppl");
}

TEST(Perplexity, OfOneWindowIsTheScore) {
  const auto engine = load(kRoot / "models/tiny");
  const EvalText text = encode_text(*engine, "What is the city but the people?");
  std::vector<Token> ids = text.tokens;
  ids.insert(ids.begin(), *text.bos);
  Session session(engine);
  EXPECT_DOUBLE_EQ(perplexity(engine, text, {}).nll.value, *score(session, ids).nll);
  // Ids as they are: the first is given, as a score's is.
  Session again(engine);
  EXPECT_DOUBLE_EQ(perplexity(engine, {ids}, {}).nll.value, *score(again, ids).nll);
}

TEST(Perplexity, DoesNotDependOnTheThreads) {
  const Json golden = read_json_file(kGolden / "eval/perplexity.json");
  std::vector<double> values;
  for (const int threads : {1, 3})
    values.push_back(perplexity(load(kRoot / "models/tiny", Compute::kFast, threads),
                                text_of(golden), windows_of(golden))
                         .nll.value);
  EXPECT_EQ(values[0], values[1]);
}

TEST(Perplexity, RefusesWhatLeavesNothingToPredict) {
  const auto engine = load(kGolden / "gemma3-v5");
  EXPECT_THROW(perplexity(engine, {{}, 2}, {}), Error);
  EXPECT_THROW(perplexity(engine, {{7}}, {}), Error);
  EXPECT_THROW(perplexity(engine, {{7, 1 << 20}}, {}), Error) << "the last id is never read";
  EXPECT_EQ(perplexity(engine, {{7}, 2}, {}).predicted, 1);
  EXPECT_FALSE(perplexity(engine, {{7}, 2}, {}).nll.error);
}

TEST(Windows, PredictEveryTokenOnce) {
  for (const bool bos : {true, false})
    for (const int64_t count : {2, 7, 8, 9, 40})
      for (const int64_t stride : {1, 3, 6}) {
        EvalText text{std::vector<Token>(static_cast<size_t>(count), 7)};
        if (bos) text.bos = 2;
        int64_t done = bos ? 0 : 1;
        for (const EvalWindow& w : windows_of(text, 10, {.context = 8, .stride = stride})) {
          EXPECT_EQ(w.predicted, done);
          EXPECT_LE(w.begin, w.predicted - (bos ? 0 : 1)) << "predicted from nothing";
          EXPECT_LE(w.end - w.begin + (bos ? 1 : 0), 8);
          done = w.end;
        }
        EXPECT_EQ(done, count);
      }
}

TEST(Windows, RefuseStridesThatLeaveGaps) {
  const EvalText with{{7, 7, 7}, 2}, without{{7, 7, 7}};
  EXPECT_NO_THROW(windows_of(with, 10, {.context = 8, .stride = 7}));
  EXPECT_THROW(windows_of(with, 10, {.context = 8, .stride = 8}), Error);
  EXPECT_NO_THROW(windows_of(without, 10, {.context = 8, .stride = 7}));
  EXPECT_THROW(windows_of(without, 10, {.context = 8, .stride = 8}), Error);
  EXPECT_THROW(windows_of(with, 10, {.context = 8, .stride = -1}), Error);
  EXPECT_THROW(windows_of(with, 10, {.context = 1}), Error);
  EXPECT_NO_THROW(windows_of(with, 10, {.context = 2}));
}

TEST(Compare, EveryFigureEqualsTheReference) {
  const Json golden = read_json_file(kGolden / "eval/comparison.json");
  const Comparison c = compare(load(kGolden / "gemma2-gqa"), load(kGolden / "gemma3-mm"),
                               text_of(golden), windows_of(golden));
  expect_near(c.kld, golden, "kld");
  expect_near(c.top1, golden, "top1");
  expect_near(c.nll_a, golden, "nll_a");
  expect_near(c.nll_b, golden, "nll_b");
  expect_near(c.ppl_a, golden, "ppl_a");
  expect_near(c.ppl_b, golden, "ppl_b");
  expect_near(c.ppl_ratio, golden, "ppl_ratio");
  const auto near = [&](double value, const char* name) {
    const double expected = golden[name];
    EXPECT_NEAR(value, expected, kBound * std::abs(expected)) << name;
  };
  near(c.kld_median, "kld_median");
  near(c.kld_p90, "kld_p90");
  near(c.kld_p99, "kld_p99");
  near(c.kld_max, "kld_max");
  near(c.dp_top, "dp_top");
  near(c.dp_mean, "dp_mean");
  near(c.dp_rms, "dp_rms");
  near(c.logit_difference, "logit_difference");
}

TEST(Compare, AModelWithItselfIsExactlyTheSame) {
  const Json golden = read_json_file(kGolden / "eval/perplexity.json");
  const Comparison c =
      compare(load(kRoot / "models/tiny", Compute::kFast, 2),
              load(kRoot / "models/tiny", Compute::kFast, 1), text_of(golden), {.context = 100});
  EXPECT_EQ(c.kld_max, 0);
  EXPECT_EQ(c.top1.value, 1);
  EXPECT_EQ(c.ppl_ratio.value, 1);
  EXPECT_EQ(c.logit_difference, 0);
  EXPECT_EQ(c.ppl_a.value, perplexity(load(kRoot / "models/tiny", Compute::kFast), text_of(golden),
                                      {.context = 100})
                               .ppl.value);
}

TEST(Compare, RefusesOtherVocabularies) {
  const auto a = load(kGolden / "gemma2-gqa"), b = load(kGolden / "gemma3-v5");
  try {
    compare(a, b, {{5, 6}, 2}, {});
    FAIL() << "300 and 320 ids were compared";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the vocabularies differ"), std::string::npos) << e.what();
  }
}

// A stop request before the first token is an error, one after some a shorter result.
TEST(Compare, AStopRequestKeepsWhatIsDone) {
  const auto engine = load(kGolden / "gemma3-v5");
  const EvalText text{std::vector<Token>(3000, 7), 2};
  std::stop_source stop;
  const Watch watch{[&](int64_t, int64_t) { stop.request_stop(); }, stop.get_token()};
  const Comparison c = compare(engine, engine, text, {.context = 64}, watch);
  EXPECT_TRUE(c.interrupted);
  EXPECT_GT(c.predicted, 0);
  EXPECT_LT(c.predicted, 3000);
  EXPECT_THROW(compare(engine, engine, text, {}, watch), Error);
  EXPECT_THROW(perplexity(engine, text, {}, watch), Error);
  std::stop_source later;
  const Watch second{[&](int64_t, int64_t) { later.request_stop(); }, later.get_token()};
  const Perplexity p = perplexity(engine, text, {.context = 64}, second);
  EXPECT_TRUE(p.interrupted);
  EXPECT_LT(p.predicted, 3000);
}

// ---- rows

std::vector<float> floats(const SafetensorsFile& file, const char* name) {
  const auto bytes = file.find(name)->bytes;
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(Divergence, OfRowsEqualsNumpys) {
  const SafetensorsFile file = SafetensorsFile::open(kGolden / "eval/rows.safetensors");
  const auto kld = read_json_file(kGolden / "eval/rows.json")["kld"].get<std::vector<double>>();
  const std::vector<float> a = floats(file, "a"), b = floats(file, "b");
  const size_t vocab = a.size() / kld.size();
  ThreadPool pool(2);
  for (size_t i = 0; i < kld.size(); ++i) {
    const auto row = [&](const std::vector<float>& rows) {
      return std::span(rows).subspan(i * vocab, vocab);
    };
    // Either may be off by a few roundings of logits that differ by up to 60.
    EXPECT_NEAR(compare_rows(row(a), row(b), pool).kld, kld[i], 1e-12 * kld[i] + 1e-13) << i;
    EXPECT_EQ(compare_rows(row(a), row(a), pool).kld, 0) << i;
  }
}

// Rows of three slices and a piece, against plain loops; and the same bits from any threads.
TEST(Divergence, OfRowsInSlices) {
  const size_t n = 3 * kLogitSlice + 17;
  std::vector<float> a(n), b(n);
  for (size_t i = 0; i < n; ++i) {
    a[i] = static_cast<float>(6 * std::sin(0.37 * static_cast<double>(i)));
    b[i] = a[i] + static_cast<float>(0.2 * std::cos(1.1 * static_cast<double>(i)));
  }
  a[2 * kLogitSlice + 5] = 9;  // the likeliest are in slices that are not the first
  b[3 * kLogitSlice + 16] = 9.5;
  double sum_a = 0, sum_b = 0, kld = 0;
  for (size_t i = 0; i < n; ++i) sum_a += std::exp(double{a[i]}), sum_b += std::exp(double{b[i]});
  for (size_t i = 0; i < n; ++i)
    kld += std::exp(a[i] - std::log(sum_a)) * ((a[i] - std::log(sum_a)) - (b[i] - std::log(sum_b)));
  ThreadPool one(1), three(3);
  const RowComparison row = compare_rows(a, b, one);
  EXPECT_NEAR(row.kld, kld, 1e-12);
  EXPECT_NEAR(log_sum_exp(a), std::log(sum_a), 1e-6);
  EXPECT_NEAR(log_sum_exp(b), std::log(sum_b), 1e-6);
  EXPECT_EQ(row.top_a, 2 * kLogitSlice + 5);
  EXPECT_EQ(row.top_b, 3 * kLogitSlice + 16);
  EXPECT_EQ(row.kld, compare_rows(a, b, three).kld);
}

TEST(Divergence, IsNotFiniteWhereALogitIsNot) {
  ThreadPool pool(1);
  const std::vector<float> good = {1, 2, 3};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const std::vector<float> row = {1, bad, 3};
    EXPECT_FALSE(std::isfinite(compare_rows(good, row, pool).kld));
    EXPECT_FALSE(std::isfinite(compare_rows(row, good, pool).kld));
    EXPECT_FALSE(std::isfinite(log_sum_exp(row)));
  }
}

// ---- statistics

TEST(Estimate, OfKnownValues) {
  // Blocks of two: sums 3, 7, 9 around 2 x 19/6; 3/2 x ((3 - 19/3)^2 + (7 - 19/3)^2 +
  // (9 - 19/3)^2) = 28, and its root over 6.
  const std::vector<double> values = {1, 2, 3, 4, 4, 5};
  EXPECT_DOUBLE_EQ(estimate(values).value, 19.0 / 6);
  EXPECT_NEAR(*estimate(values).error, std::sqrt(28.0) / 6, 1e-15);
  EXPECT_EQ(estimate(std::vector<double>(9, 3.0)).error, 0);
  EXPECT_FALSE(estimate(std::vector<double>{3}).error);
}

// Of values that do not depend on each other it is the textbook's error; of values that come in
// runs of eight alike, the root of eight times that.
TEST(Estimate, SeesThatNeighboursAreAlike) {
  constexpr size_t kCount = 40000, kRun = 8;
  std::vector<double> apart(kCount), alike(kCount);
  uint64_t state = 1;
  for (size_t i = 0; i < kCount; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    apart[i] = static_cast<double>(state >> 40);
    alike[i] = apart[i / kRun];
  }
  const auto naive = [](const std::vector<double>& values) {
    return standard_deviation(values) / std::sqrt(static_cast<double>(values.size()));
  };
  EXPECT_NEAR(*estimate(apart).error / naive(apart), 1, 0.15);
  EXPECT_NEAR(*estimate(alike).error / naive(alike), std::sqrt(8.0), 0.15 * std::sqrt(8.0));
}

TEST(Estimate, QuantilesLieBetweenValuesInProportion) {
  const std::vector<double> sorted = {1, 2, 4, 8};  // numpy.percentile of them
  EXPECT_DOUBLE_EQ(quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.9), 6.8);
  EXPECT_DOUBLE_EQ(quantile(sorted, 1), 8);
}

}  // namespace
}  // namespace lapidary
