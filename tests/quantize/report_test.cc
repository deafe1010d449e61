// A row for each format that a model is made in.
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/quantize.h"

#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = LAPIDARY_SOURCE_DIR "/models/tiny";

class FormatReport : public ::testing::Test {
 protected:
  FormatReport() {
    options_.quantize.text = std::string(built_in_text().substr(0, 4000));
    options_.quantize.calibration_tokens = 60;
    options_.quantize.threads = 2;
    options_.quality = {.engine = {.compute = Compute::kExact, .threads = 2},
                        .prompt = 8,
                        .gen = 2,
                        .repetitions = 1};
  }
  std::vector<QualityRow> rows(const Watch& watch = {}) {
    std::vector<QualityRow> rows;
    format_report(
        kTiny, options_,
        [](const Engine& engine) { return encode_text(engine, built_in_text().substr(5000, 400)); },
        [&](const QualityRow& row) { rows.push_back(row); }, watch);
    return rows;
  }
  static std::set<std::string> left() {  // in the folder for temporary files
    const std::string own = "lapidary-report-" + std::to_string(::getpid());
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(fs::temp_directory_path()))
      if (entry.path().filename().string().starts_with(own)) names.insert(entry.path().string());
    return names;
  }

  ScratchFolder scratch_;
  FormatReportOptions options_;
};

TEST_F(FormatReport, FewerBitsAreSmallerAndFurtherFromTheSource) {
  options_.formats = {"rtn-8", "rtn-4", "rtn-3", "awq-3", "awq-3.3", "q8_0"};
  const auto before = left();
  const std::vector<QualityRow> made = rows();
  EXPECT_EQ(left(), before);
  ASSERT_EQ(made.size(), 7u);
  EXPECT_EQ(made[0].model, kTiny.string());
  EXPECT_FALSE(made[0].compared);
  for (size_t i = 1; i < made.size(); ++i) {
    EXPECT_EQ(made[i].model, options_.formats[i - 1]);
    ASSERT_TRUE(made[i].compared);
    EXPECT_EQ(made[i].ppl.value, made[i].compared->ppl_b.value);
    EXPECT_GT(made[i].decode_tokens_per_second, 0);
    EXPECT_GT(made[i].prefill_tokens_per_second, 0);
  }
  const auto kld = [&](size_t i) { return made[i].compared->kld.value; };
  EXPECT_DOUBLE_EQ(made[1].bits_per_weight(), 8.5);
  EXPECT_DOUBLE_EQ(made[2].bits_per_weight(), 4.5);
  EXPECT_DOUBLE_EQ(made[3].bits_per_weight(), 3.5);
  EXPECT_DOUBLE_EQ(made[4].bits_per_weight(), 3.5);
  EXPECT_LE(made[5].bits_per_weight(), 3.3);
  EXPECT_GT(made[5].bits_per_weight(), 3.2);
  EXPECT_EQ(made[6].format, "Q8_0");
  EXPECT_LT(kld(1), kld(2));
  EXPECT_LT(kld(2), kld(3));
  EXPECT_LT(kld(4), kld(3));
  EXPECT_LT(kld(6), kld(2));
}

TEST_F(FormatReport, KeepsTheModelsWhereAsked) {
  options_.formats = {"rtn-4", "q4_0"};
  options_.keep = scratch_.path() / "kept" / "here";
  EXPECT_EQ(rows().size(), 3u);
  EXPECT_TRUE(fs::exists(options_.keep / "rtn-4" / "model.safetensors"));
  EXPECT_TRUE(fs::exists(options_.keep / "q4_0.gguf"));
  EXPECT_NE(error_of([&] { rows(); }).find("rtn-4: is there already"), std::string::npos);
}

TEST_F(FormatReport, RefusesFormatsThatCannotBe) {
  const auto error = [&](std::vector<std::string> formats) {
    options_.formats = std::move(formats);
    return error_of([&] { rows(); });
  };
  EXPECT_EQ(error({}), "formats: none given");
  EXPECT_EQ(error({"rtn-4", "rtn-4"}), "formats: 'rtn-4' comes twice");
  EXPECT_NE(error({"rtn-7"}).find("7"), std::string::npos);
  for (const char* name : {"4", "awq-", "awq-x", "awq--3.5", "gptq-4", "q5_x", "awq-4.5x", ""})
    EXPECT_TRUE(error({name}).starts_with("formats: '" + std::string(name) + "' given")) << name;
}

TEST_F(FormatReport, LeavesNothingWhenInterrupted) {
  options_.formats = {"rtn-4", "rtn-3"};
  const auto before = left();
  std::stop_source stop;
  std::vector<QualityRow> done;
  EXPECT_THROW(format_report(
                   kTiny, options_,
                   [](const Engine& engine) { return encode_text(engine, "To be, or not to be."); },
                   [&](const QualityRow& row) {
                     done.push_back(row);
                     if (done.size() == 2) stop.request_stop();
                   },
                   Watch{{}, stop.get_token()}),
               Error);
  EXPECT_EQ(done.size(), 2u);
  EXPECT_EQ(left(), before);
}

}  // namespace
}  // namespace lapidary
