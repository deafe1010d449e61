#include "bench/reports.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lapidary {
namespace {

const BenchHost kHost{"Acme 9000", "abc1234", 42};
const BenchedModel kModel{
    "/m",  "gemma3 1B affine 4-bit, groups of 64", int64_t{1} << 29, 1'000'000'000, "avx2", "fast",
    "bf16"};

std::vector<SpeedResult> results() {
  SpeedResult prompt{.test = {.prompt = 100}, .time = "2026-09-01T12:00:00Z", .threads = 2};
  prompt.samples_ns = {1'000'000'000, 2'000'000'000};  // 100 and 50 tokens per second
  prompt.work = {.bytes = 2e6, .flops = 2e9};
  prompt.ceiling = {"avx2 f32", "TFLOP/s", 0.3, 150};
  SpeedResult steps{.test = {.gen = 10, .depth = 4096}, .time = prompt.time, .threads = 2};
  steps.samples_ns = {500'000'000};
  steps.work = {.bytes = 5e8, .flops = 2e9};
  steps.ceiling = {"read, 4 streams", "GB/s", 20, 40};
  return {prompt, steps};
}

TEST(Reports, NamesOfTests) {
  EXPECT_EQ(name_of({.prompt = 512}), "pp512");
  EXPECT_EQ(name_of({.gen = 64, .depth = 4096, .batch = 8}), "tg64 @ d4096");
}

TEST(Reports, MarkdownOfSpeedFitsATerminal) {
  EXPECT_EQ(render(speed_report(kHost, kModel, results()), ReportFormat::kMarkdown),
            "- processor: Acme 9000\n"
            "- lapidary: abc1234 (42)\n"
            "- model: gemma3 1B affine 4-bit, groups of 64, 512 MiB\n"
            "- folder: /m\n"
            "- arithmetic: avx2, fast, keys and values in bf16\n"
            "- threads: 2\n"
            "\n"
            "|         test |           t/s | GB/s | TFLOP/s |       limit | share |\n"
            "| -----------: | ------------: | ---: | ------: | ----------: | ----: |\n"
            "|        pp100 | 75.00 ± 35.36 | 0.15 |    0.15 | 0.3 TFLOP/s |  50 % |\n"
            "| tg10 @ d4096 |  20.00 ± 0.00 |   10 |    0.04 |     20 GB/s |  50 % |\n");
}

TEST(Reports, RecordOfSpeedHasLlamaBenchsKeysAndTheLimit) {
  const Report report = speed_report(kHost, kModel, results());
  EXPECT_EQ(report.records[0].dump(),
            "{\"build_commit\":\"abc1234\",\"build_number\":42,\"cpu_info\":\"Acme 9000\","
            "\"backends\":\"CPU\",\"isa\":\"avx2\",\"model_filename\":\"/m\","
            "\"model_type\":\"gemma3 1B affine 4-bit, groups of 64\",\"model_size\":536870912,"
            "\"model_n_params\":1000000000,\"compute\":\"fast\",\"n_batch\":1,\"n_threads\":2,"
            "\"type_k\":\"bf16\",\"type_v\":\"bf16\",\"n_prompt\":100,\"n_gen\":0,\"n_depth\":0,"
            "\"test\":\"pp100\",\"test_time\":\"2026-09-01T12:00:00Z\",\"avg_ns\":1500000000,"
            "\"stddev_ns\":707106781,\"median_ns\":1500000000,\"avg_ts\":75.0,"
            "\"stddev_ts\":35.35533905932738,\"median_ts\":75.0,\"bytes_per_token\":2000000.0,"
            "\"flop_per_token\":2000000000.0,\"gb_per_s\":0.15,\"tflop_per_s\":0.15,"
            "\"limit\":0.3,\"limit_unit\":\"TFLOP/s\",\"limit_name\":\"avx2 f32\","
            "\"limit_ts\":150.0,\"share_of_limit\":0.5,\"samples_ns\":[1000000000,2000000000],"
            "\"samples_ts\":[100.0,50.0]}");
  const auto& steps = report.records[1];
  EXPECT_EQ(steps["n_depth"], 4096);
  // A share is of the rate that is limited.
  EXPECT_DOUBLE_EQ(steps["share_of_limit"], steps["gb_per_s"].get<double>() / 20);
}

TEST(Reports, WithoutLimitsTheKeysAreNull) {
  auto list = results();
  for (SpeedResult& r : list) r.ceiling = {};
  const Report report = speed_report(kHost, kModel, list);
  EXPECT_TRUE(report.records[0]["limit"].is_null());
  EXPECT_TRUE(report.records[0]["share_of_limit"].is_null());
  EXPECT_EQ(report.charts[0].series.size(), 1u);
}

TEST(Reports, WhatVariesAddsAColumn) {
  auto list = results();
  EXPECT_EQ(speed_report(kHost, kModel, list).table.columns.size(), 6u);
  list[0].test.batch = 4;
  EXPECT_EQ(speed_report(kHost, kModel, list).table.columns.size(), 7u);
  list[0].threads = 1;
  const Report report = speed_report(kHost, kModel, list);
  EXPECT_EQ(report.table.columns.size(), 8u);
  EXPECT_NE(report.facts.back().first, "threads");
}

TEST(Reports, ACurveHasAChartPerKindAndALinePerTestWithItsLimit) {
  auto list = results();
  list.push_back(list[1]);
  list.back().test.depth = 8192;
  const Report report = curve_report(kHost, kModel, list);
  ASSERT_EQ(report.charts.size(), 2u);
  ASSERT_EQ(report.charts[0].series.size(), 2u);
  EXPECT_EQ(report.charts[0].series[0].name, "pp100");
  ASSERT_EQ(report.charts[1].series.size(), 2u);
  const auto& line = report.charts[1].series[0];
  EXPECT_EQ(line.name, "tg10");
  EXPECT_EQ(line.points, (std::vector<std::pair<double, double>>{{4096, 20}, {8192, 20}}));
  EXPECT_TRUE(report.charts[1].series[1].limit);
}

TEST(Reports, NaturalSaysWhereAnAnswerWasCut) {
  const std::vector<NaturalResult> list = {{.name = "short",
                                            .prompt = "?",
                                            .prompt_tokens = 20,
                                            .tokens = 31,
                                            .ended = true,
                                            .prefill_tokens_per_second = 200,
                                            .decode_tokens_per_second = 12.5,
                                            .first_token_seconds = 0.1,
                                            .text = "!"},
                                           {.name = "long", .tokens = 512}};
  const Report report = natural_report(kHost, kModel, list, int64_t{3} << 29, 5 << 20);
  const std::string text = render(report, ReportFormat::kMarkdown);
  EXPECT_NE(text.find("- files: 1.50 GiB\n- memory, at most: 5 MiB\n"), std::string::npos) << text;
  EXPECT_NE(text.find("| short    |     20 |     31 | natural | 12.50 |     200.00 |    0.10 |\n"
                      "| long     |      0 |    512 | cut off |  0.00 |       0.00 |    0.00 |\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(report.records[0]["ended"], true);
  EXPECT_EQ(report.records[0]["peak_rss_bytes"], 5 << 20);
  EXPECT_EQ(report.charts[0].labels[0], "short, 31 tokens");
}

TEST(Reports, AWrongKernelHasNoSpeed) {
  const Ceiling ceiling{"read", "GB/s", 10, 2000};
  const std::vector<KernelResult> list = {
      {.isa = "avx2",
       .op = "matmul",
       .shape = "1 x 1",
       .error = 1e-7,
       .correct = true,
       .seconds = 0.001,
       .work = {.bytes = 5e6, .flops = 2e9},
       .ceiling = ceiling},
      {.isa = "avx2", .op = "softcap", .shape = "2", .error = 0.5}};
  const Report report = kernels_report(kHost, list);
  using Row = std::vector<std::string>;
  EXPECT_EQ(report.table.rows[0],
            (Row{"avx2", "matmul", "1 x 1", "1.0e-07", "1000", "5", "2000", "50 %"}));
  EXPECT_EQ(report.table.rows[1], (Row{"avx2", "softcap", "2", "WRONG", "-", "-", "-", "-"}));
  EXPECT_EQ(report.records[1]["correct"], false);
  EXPECT_TRUE(report.records[1]["seconds"].is_null());
  EXPECT_TRUE(report.records[1]["gb_per_s"].is_null());
  ASSERT_EQ(report.charts.size(), 1u);
  EXPECT_EQ(report.charts[0].series[0].points, (std::vector<std::pair<double, double>>{{0, 50}}));
}

TEST(Reports, CsvOfLimits) {
  const std::vector<Limit> limits = {{.name = "read, 2 streams",
                                      .isa = "",
                                      .what = "plain",
                                      .unit = "GB/s",
                                      .threads = 1,
                                      .samples = {3, 1, 2}}};
  EXPECT_EQ(render(limits_report(kHost, limits), ReportFormat::kCsv),
            "build_commit,build_number,cpu_info,name,isa,what,n_threads,unit,best,median\n"
            "\"abc1234\",\"42\",\"Acme 9000\",\"read, 2 streams\",\"\",\"plain\",\"1\",\"GB/s\","
            "\"3.0\",\"2.0\"\n");
}

}  // namespace
}  // namespace lapidary
