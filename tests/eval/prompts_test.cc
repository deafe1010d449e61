#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/error.h"
#include "lapidary/eval.h"

#include "eval/reports.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

std::string message_of(std::string_view jsonl) {
  try {
    parse_prompts(jsonl, "p.jsonl");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Prompts, OfAFile) {
  const auto prompts = parse_prompts(
      "{\"prompt\": \"Why?\"}\n\n{\"prompt\": \"a\\nb\", \"id\": \"x\", \"category\": \"c\"}\r\n",
      "p");
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].id, "1");
  EXPECT_EQ(prompts[0].text, "Why?");
  EXPECT_EQ(prompts[0].category, "");
  EXPECT_EQ(prompts[1].id, "x");
  EXPECT_EQ(prompts[1].text, "a\nb");
  EXPECT_EQ(prompts[1].category, "c");
}

TEST(Prompts, ErrorsNameFileAndLine) {
  for (const auto& [jsonl, words] : std::map<std::string, std::string>{
           {"{\"prompt\": \"a\"}\n{\"prompt\": \n", "p.jsonl: line 2"},
           {"{\"prompt\": \"a\"}\n\n{\"id\": \"3\"}\n", "p.jsonl: line 3"},
           {"{\"prompt\": 7}", "field 'prompt'"},
           {"{\"prompt\": \"\"}", "field 'prompt'"},
           {"[1]", "expected an object"},
           {"\n\n", "no prompts"}}) {
    const std::string message = message_of(jsonl);
    EXPECT_NE(message.find(words), std::string::npos) << jsonl << ": " << message;
    EXPECT_NE(message.find("p.jsonl"), std::string::npos) << message;
  }
}

TEST(Prompts, BuiltInOnesAreOfFiveKinds) {
  std::map<std::string, int> kinds;
  for (const EvalPrompt& prompt : built_in_prompts()) ++kinds[prompt.category];
  EXPECT_EQ(kinds.size(), 5u);
  for (const auto& [kind, count] : kinds) EXPECT_GE(count, 4) << kind;
}

// A file's template counts as a folder's does.
TEST(Prompts, AGgufFileHasAChatFormatToo) {
  const ScratchFolder scratch;
  export_gguf(kTiny, scratch.path() / "with.gguf", {});
  EXPECT_TRUE(has_chat_format(*Engine::load(scratch.path() / "with.gguf", {})));
  const fs::path folder = scratch.path() / "without";
  fs::create_directory(folder);
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"})
    fs::copy_file(kTiny / name, folder / name);
  export_gguf(folder, scratch.path() / "without.gguf", {});
  EXPECT_FALSE(has_chat_format(*Engine::load(scratch.path() / "without.gguf", {})));
}

TEST(Prompts, AnswersOfAModelAndItselfAreIdentical) {
  PromptModel a = load_prompt_model(kTiny, {.threads = 1}), b = load_prompt_model(kTiny, {});
  EXPECT_TRUE(has_chat_format(*a.engine));
  const std::vector<EvalPrompt> prompts = {{"1", "", "To be"}, {"2", "", "What news?"}};
  std::vector<PromptPair> pairs;
  compare_prompts(a, b, prompts, {.max_tokens = 8},
                  [&](const PromptPair& pair) { pairs.push_back(pair); });
  ASSERT_EQ(pairs.size(), 2u);
  for (const PromptPair& pair : pairs) {
    EXPECT_EQ(pair.likeness, Likeness::kIdentical);
    EXPECT_EQ(pair.common, pair.a.text.size());
    EXPECT_FALSE(pair.a.text.empty());
  }
  EXPECT_GT(a.memory, 0);
  EXPECT_GT(b.prefill_tokens_per_second(), 0);
  EXPECT_EQ(a.decoded, std::ssize(pairs[0].a.tokens) + std::ssize(pairs[1].a.tokens) - 2);
  // Without the chat format the question goes on, which is another prompt.
  compare_prompts(a, b, prompts, {.max_tokens = 8, .chat_format = false},
                  [&](const PromptPair& pair) { pairs.push_back(pair); });
  EXPECT_LT(pairs[2].a.prompt_tokens, pairs[0].a.prompt_tokens);
  EXPECT_NE(pairs[2].a.tokens, pairs[0].a.tokens);
}

TEST(Prompts, AStopRequestKeepsWholePairs) {
  PromptModel a = load_prompt_model(kTiny, {.threads = 1}), b = load_prompt_model(kTiny, {});
  std::stop_source stop;
  int pairs = 0;
  EXPECT_THROW(compare_prompts(
                   a, b, built_in_prompts(), {.max_tokens = 4},
                   [&](const PromptPair&) {
                     ++pairs;
                     stop.request_stop();
                   },
                   Watch{{}, stop.get_token()}),
               Error);
  EXPECT_EQ(pairs, 1);
}

PromptPair pair_of(std::string left, std::string right, size_t common, Likeness likeness) {
  PromptPair pair{
      .prompt = {"q<1>", "kind", "2 < 3 & more?"}, .common = common, .likeness = likeness};
  pair.a.text = std::move(left);
  pair.b.text = std::move(right);
  return pair;
}

TEST(Prompts, PageMarksWhatDiffersAndLetsNoTagThrough) {
  const PromptModel model = load_prompt_model(kTiny, {.threads = 1});
  const std::vector<PromptPair> pairs = {
      pair_of("Same <b>start</b>", "Same <i>", 6, Likeness::kDifferent),
      pair_of("equal", "equal", 5, Likeness::kIdentical)};
  const std::string page =
      render(prompts_report({"cpu", "abc", 1}, model, model, pairs), ReportFormat::kHtml);
  EXPECT_NE(page.find("<pre>Same &lt;<mark>b&gt;start&lt;/b&gt;</mark></pre>"), std::string::npos);
  EXPECT_NE(page.find("<pre>Same &lt;<mark>i&gt;</mark></pre>"), std::string::npos);
  EXPECT_NE(page.find("<pre>equal</pre>"), std::string::npos);
  EXPECT_NE(page.find("q&lt;1&gt;"), std::string::npos);
  EXPECT_NE(page.find("2 &lt; 3 &amp; more?"), std::string::npos);
  EXPECT_NE(page.find("1 identical, 0 with the same start, 1 different"), std::string::npos);
}

TEST(Table, HasARowForEachModel) {
  const std::vector<fs::path> models = {kTiny, kTiny};
  std::vector<QualityRow> rows;
  QualityOptions options{.engine = {.threads = 1}, .prompt = 8, .gen = 2, .repetitions = 1};
  quality_table(
      models, [](const Engine& engine) { return encode_text(engine, "To be, or not to be."); },
      options, [&](const QualityRow& row) { rows.push_back(row); });
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_FALSE(rows[0].compared);
  ASSERT_TRUE(rows[1].compared);
  EXPECT_EQ(rows[1].compared->kld_max, 0);
  EXPECT_EQ(rows[0].ppl.value, rows[1].ppl.value);
  EXPECT_EQ(rows[0].bits_per_weight(), 16);
  EXPECT_GT(rows[1].decode_tokens_per_second, 0);
  const Report report = quality_report({"cpu", "abc", 1}, rows, "a text");
  EXPECT_TRUE(report.records[0]["kld_mean"].is_null());
  EXPECT_EQ(report.records[1]["kld_mean"], 0.0);
  EXPECT_EQ(report.records[1]["top1_agreement"], 1.0);
  EXPECT_EQ(report.table.rows[0].size(), report.table.columns.size());
}

TEST(Reports, EstimatesHaveTheDigitsThatTheErrorLeaves) {
  EXPECT_EQ(estimate_text({12.3456, 0.0678}), "12.346 ± 0.068");
  EXPECT_EQ(estimate_text({1234.5, 12.3}), "1234 ± 12");
  EXPECT_EQ(estimate_text({0.00012347, 0.0000021}), "0.0001235 ± 0.0000021");
  EXPECT_EQ(estimate_text({0, 0.0}), "0 ± 0");
  EXPECT_EQ(estimate_text({3.5, std::nullopt}), "3.5");
}

}  // namespace
}  // namespace lapidary
