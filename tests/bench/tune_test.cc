// What is chosen of measurements.
#include "lapidary/tune.h"

#include <filesystem>
#include <stop_token>

#include <gtest/gtest.h>

#include "lapidary/error.h"

namespace lapidary {
namespace {

TuneChoice of(std::vector<TuneValue> values) {
  return {.setting = "threads", .measured = "steps", .values = std::move(values)};
}

TEST(Choose, TakesWhatIsClearlyFaster) {
  TuneChoice choice = of({{"1", {10, 11, 30}}, {"2", {20, 21, 22}}, {"4", {15, 16, 17}}});
  choose(choice, "4");
  EXPECT_EQ(choice.chosen, "2");
  EXPECT_EQ(choice.why, "31 % faster than 4, which is usual: 21.0 against 16.0 tok/s");
}

TEST(Choose, KeepsWhatIsUsualWhereTheGainMayBeChance) {
  TuneChoice choice = of({{"1", {100}}, {"2", {102}}});
  choose(choice, "1");
  EXPECT_EQ(choice.chosen, "1");
  EXPECT_NE(choice.why.find("may be chance"), std::string::npos);
  choose(choice, "2");
  EXPECT_EQ(choice.why, "the fastest: 102.0 tok/s");
}

TEST(Choose, WantsTheGainInEveryRound) {
  TuneChoice choice = of({{"64", {20, 9, 21}}, {"0", {10, 10, 10}}});
  choose(choice, "0");
  EXPECT_EQ(choice.chosen, "0");
  choice.values[0].tokens_per_second[1] = 19;
  choose(choice, "0");
  EXPECT_EQ(choice.chosen, "64");
}

TEST(Choose, NeverTakesWhatIsNotAllowed) {
  TuneChoice choice = of({{"bf16", {10}}, {"q4", {100}, false}, {"q8", {12}}});
  choose(choice, "bf16");
  EXPECT_EQ(choice.chosen, "q8");
  TuneChoice one = of({{"avx2", {}}});
  choose(one, "avx2");
  EXPECT_EQ(one.why, "the only one there is");
}

TEST(Tune, MeasuresEverySetting) {
  const TuneOptions options{
      .model = std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5",
      .rounds = 1,
      .prompt = 16,
      .gen = 2,
      .depth = 4};
  const std::vector<TuneChoice> choices = tune(options);
  const char* settings[] = {"isa", "threads", "threads_batch", "chunk", "kv_type"};
  ASSERT_EQ(choices.size(), std::size(settings));
  for (size_t i = 0; i < choices.size(); ++i) {
    EXPECT_EQ(choices[i].setting, settings[i]);
    EXPECT_FALSE(choices[i].why.empty());
    for (const TuneValue& value : choices[i].values)
      EXPECT_EQ(value.tokens_per_second.size(), choices[i].values.size() > 1 ? 1u : 0u);
  }
  EXPECT_EQ(choices[4].values.size(), 4u);
  EXPECT_NE(choices[4].chosen, "q4");
}

TEST(Tune, StopsWhenAsked) {
  std::stop_source source;
  source.request_stop();
  const TuneOptions options{.model = std::filesystem::path(LAPIDARY_SOURCE_DIR) /
                                     "tests/golden/gemma3-v5"};
  EXPECT_THROW(tune(options, Watch{{}, source.get_token()}), Error);
}

}  // namespace
}  // namespace lapidary
