#include "isolate/measures.h"

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/session.h"

#include "base/scratch_folder.h"
#include "isolate/description.h"
#include "isolate/model_measures.h"
#include "isolate/run.h"
#include "isolate/statistics.h"
#include "small_example.h"

namespace lapidary {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(kTiny);
  return loaded;
}

PlannedCondition planned(Condition condition) {
  return make_plan(small_example(), {.conditions = {condition}}, tokenizer()).conditions.at(0);
}

TEST(Measures, ForeignIsWhatAClusterMustNotKnow) {
  const IsolationExample example = small_example();
  const PlannedCondition plan = planned(Condition::kSemantic);
  // 8 words, of which "oven" is a term of the other cluster.
  const std::string text = "The ship with its mast has an oven.";
  const Measures of_a = measure_text(example, {}, plan.outputs[0], text);
  EXPECT_DOUBLE_EQ(of_a.at("contamination"), 100.0 / 8);
  EXPECT_EQ(of_a.at("words"), 8);
  EXPECT_FALSE(of_a.contains("coverage"));
  const Measures of_b = measure_text(example, {}, plan.outputs[1], text);
  EXPECT_DOUBLE_EQ(of_b.at("contamination"), 100.0 / 8);  // "mast"
  EXPECT_FALSE(of_b.contains("rougeL"));                  // nothing was expected
  // The synthesis hears both: nothing is foreign to it, and it should cover both.
  const Measures of_c = measure_text(example, {}, plan.outputs[2], text);
  EXPECT_FALSE(of_c.contains("contamination"));
  EXPECT_GT(of_c.at("coverage"), 0);
  const auto marks = foreign_marks(example, {}, 0, text);
  ASSERT_TRUE(marks);
  ASSERT_EQ(marks->places.size(), 1u);
  EXPECT_EQ(text.substr(marks->places[0].begin, 4), "oven");
  EXPECT_FALSE(foreign_marks(example, {}, 2, text));
}

TEST(Measures, TheExpectedOutputIsWhatOverlapIsWith) {
  const PlannedCondition plan = planned(Condition::kSemantic);
  const Measures same =
      measure_text(small_example(), {}, plan.outputs[0], "The ship has two masts.");
  EXPECT_DOUBLE_EQ(same.at("rougeL"), 1);
  EXPECT_NEAR(same.at("bleu"), 100, 1e-9);
  EXPECT_NEAR(same.at("chrf"), 100, 1e-9);
}

// Outputs of made-up figures: x under semantic is larger by 1, 2 and 3.
TEST(Measures, ConditionsAreComparedByExample) {
  std::vector<IsolationExample> examples(3, small_example());
  std::vector<IsolationPlan> plans;
  std::vector<MeasuredOutput> outputs;
  for (size_t e = 0; e < 3; ++e) {
    plans.push_back(make_plan(
        examples[e], {.conditions = {Condition::kSequential, Condition::kSemantic}}, tokenizer()));
    const double x = static_cast<double>(e);
    // Two outputs of a group count as their mean.
    outputs.push_back({e, 0, 0, {{"x", 10 + x}}});
    outputs.push_back({e, 0, 1, {{"x", 12 + x}}});
    outputs.push_back({e, 1, 0, {{"x", 11 + 2 * x}}});
    outputs.push_back({e, 1, 1, {{"x", 13 + 2 * x}}});
  }
  const auto figures = condition_figures(examples, plans, outputs, 1);
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].group, "outputs");
  EXPECT_DOUBLE_EQ(figures[0].mean, 12);
  EXPECT_DOUBLE_EQ(figures[1].mean, 14);
  const auto differences = condition_differences(figures, 1);
  ASSERT_EQ(differences.size(), 1u);
  const ConditionDifference& d = differences[0];
  EXPECT_EQ(d.pairs, 3);
  EXPECT_EQ(d.b, Condition::kSequential);
  EXPECT_DOUBLE_EQ(d.mean, 2);
  EXPECT_DOUBLE_EQ(*d.dz, 2);
  EXPECT_DOUBLE_EQ(*d.gz, hedges_gz(std::vector{1.0, 2.0, 3.0}));
  EXPECT_DOUBLE_EQ(*d.p_wilcoxon, 0.25);  // the least that three pairs can give
  EXPECT_DOUBLE_EQ(*d.p_holm, 0.25);      // alone in its family
  ASSERT_TRUE(d.interval);
  EXPECT_GE(d.interval->first, 1);
  EXPECT_LE(d.interval->second, 3);
}

// Of a run that is not finished: what one condition has alone is in its own figure only.
TEST(Measures, OutputsThatBothHaveArePaired) {
  const std::vector<IsolationExample> examples(2, small_example());
  const IsolationPlan plan = make_plan(
      examples[0], {.conditions = {Condition::kSequential, Condition::kSemantic}}, tokenizer());
  const std::vector<IsolationPlan> plans(2, plan);
  const std::vector<MeasuredOutput> outputs = {
      {0, 0, 0, {{"x", 1}}}, {0, 0, 1, {{"x", 100}}}, {0, 1, 0, {{"x", 4}}},
      {1, 0, 1, {{"x", 5}}}, {1, 1, 0, {{"x", 7}}},
  };
  const auto figures = condition_figures(examples, plans, outputs, 1);
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_DOUBLE_EQ(figures[0].mean, (50.5 + 5) / 2);
  const auto differences = condition_differences(figures, 1);
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_EQ(differences[0].pairs, 1);  // the other example has no output under both
  EXPECT_DOUBLE_EQ(differences[0].mean, 3);
}

// Numbers of the expected answers are the cluster's own, wherever else they stand.
TEST(Measures, ExpectedAnswersAreNotForeign) {
  IsolationExample example = small_example();
  example.turns[1].texts["instruction"] = "Bake 250 loaves at 180 degrees, sell 75 of them.";
  const std::string text = "It carries 250 men, 180 goats and 75 hens.";
  EXPECT_EQ(foreign_marks(example, {}, 0, text)->facts, 3);
  example.clusters[0].expected_output = "The ship carries 250 men.";
  EXPECT_EQ(foreign_marks(example, {}, 0, text)->facts, 2);
  example.clusters[0].questions[0].expected_output = "180";
  EXPECT_EQ(foreign_marks(example, {}, 0, text)->facts, 1);
}

TEST(Measures, OneExampleIsNoStatistics) {
  const std::vector<IsolationExample> examples = {small_example()};
  const std::vector<IsolationPlan> plans = {make_plan(
      examples[0], {.conditions = {Condition::kSequential, Condition::kSemantic}}, tokenizer())};
  const std::vector<MeasuredOutput> outputs = {{0, 0, 0, {{"x", 1}}}, {0, 1, 0, {{"x", 2}}}};
  const auto differences = condition_differences(condition_figures(examples, plans, outputs, 1), 1);
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_DOUBLE_EQ(differences[0].mean, 1);
  EXPECT_FALSE(differences[0].p_wilcoxon);
  EXPECT_FALSE(differences[0].interval);
}

// -ln p of `text` after `context`, the long way.
double nats(const std::shared_ptr<const Engine>& engine, const std::vector<Token>& context,
            const std::vector<Token>& text) {
  Session session(engine);
  session.append(context);
  double sum = 0;
  for (const Token id : text) {
    const std::span<const float> logits = session.logits();
    double total = 0;
    for (const float logit : logits) total += std::exp(double{logit});
    sum += std::log(total) - double{logits[static_cast<size_t>(id)]};
    session.append({&id, 1});
  }
  return sum;
}

TEST(ModelMeasures, AreCodeLengths) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  const std::vector<IsolationExample> examples = {small_example()};
  IsolationRunOptions options;
  options.plan.conditions = {Condition::kSequential, Condition::kSemantic, Condition::kMask};
  options.plan.max_tokens = 10;
  const std::vector<IsolationPlan> plans = {
      make_plan(examples[0], options.plan, engine->tokenizer())};
  ScratchFolder scratch;
  IsolationFolder folder(scratch.path() / "run",
                         run_description(*engine, examples, plans, options));
  run_isolation(engine, examples, plans, options, folder);
  measure_with_model(engine, examples, plans, options.plan, folder, nullptr);

  const auto text = [&](size_t condition, size_t cache) {
    return context_text(plans[0].conditions[condition],
                        plans[0].conditions[condition].caches[cache], [](size_t) { return ""; });
  };
  const auto after = [&](const std::string& context, const PlannedOutput& output) {
    std::vector<Token> ids = context_tokens(engine->tokenizer(), context, false);
    for (const Token id : prompt_tokens(engine->tokenizer(), output.prompt, false))
      ids.push_back(id);
    return ids;
  };
  for (size_t c = 0; c < 3; ++c) {
    const PlannedCondition& condition = plans[0].conditions[c];
    const PlannedOutput& a = condition.outputs[0];
    const RecordKey key = {"small", std::string(name_of(condition.condition)), "A"};
    const auto& measures = folder.measures().at(key).measures;
    const std::vector<Token> expected = engine->tokenizer().encode(" " + a.expected);
    EXPECT_NEAR(measures.at("expected_nll"),
                nats(engine, after(text(c, 0), a), expected) / static_cast<double>(expected.size()),
                1e-3);
    const std::vector<Token>& made = folder.find(key)->tokens;
    EXPECT_NEAR(measures.at("leak_nats"),
                nats(engine, after(text(1, 0), a), made) - nats(engine, after(text(0, 0), a), made),
                1e-2);
    EXPECT_LE(std::abs(measures.at("similarity")), 1 + 1e-6);
    // Who hears others knows their text: there is no leak to speak of.
    EXPECT_FALSE(
        folder.measures().at({"small", std::get<1>(key), "C"}).measures.contains("leak_nats"));
  }
}

// Before anything is made it is known what will not fit.
TEST(ModelMeasures, SayWhatHasNoRoom) {
  const auto engine = Engine::load(kTiny, {.threads = 2});
  const std::vector<IsolationExample> examples = {small_example()};
  PlanOptions options{.conditions = {Condition::kSemantic}, .max_tokens = 10};
  const auto refused = [&](std::span<const IsolationPlan> plans) -> std::string {
    try {
      check_measures(*engine, examples, plans, options);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  std::vector<IsolationPlan> plans = {make_plan(examples[0], options, engine->tokenizer())};
  EXPECT_EQ(refused(plans), "");
  plans[0].conditions[0].outputs[0].expected = std::string(2100, '\1');
  EXPECT_TRUE(refused(plans).starts_with("small: semantic, output A: expected_nll reads "));
  // The output fits its own context, but not after all turns, which leak_nats reads too.
  plans[0].conditions[0].outputs[0].expected = "";
  options.max_tokens = 2000;
  EXPECT_TRUE(refused(plans).starts_with("small: semantic, output A: leak_nats reads "));
}

// A text may come to more tokens than it was made of; a run must end all the same.
TEST(ModelMeasures, LeaveOutTheSimilarityOfATooLongText) {
  const auto engine = Engine::load(kTiny, {.threads = 2});
  const std::vector<IsolationExample> examples = {small_example()};
  const PlanOptions options{.conditions = {Condition::kSemantic}, .questions = false};
  const std::vector<IsolationPlan> plans = {make_plan(examples[0], options, engine->tokenizer())};
  const ScratchFolder scratch;
  IsolationFolder folder(scratch.path() / "run", {{"format", 1}});
  folder.add(OutputRecord{.example = "small",
                          .condition = "semantic",
                          .name = "A",
                          .tokens = {300},
                          .text = std::string(2100, '\1')});
  measure_with_model(engine, examples, plans, options, folder, nullptr);
  const auto& measures = folder.measures().at({"small", "semantic", "A"}).measures;
  EXPECT_TRUE(measures.contains("expected_nll") && measures.contains("leak_nats"));
  EXPECT_FALSE(measures.contains("similarity"));
}

TEST(ModelMeasures, AnEmbedderSaysHowSimilarOutputsAre) {
  const auto engine = Engine::load(kTiny, {.threads = 2});
  TextEmbedder embedder = TextEmbedder::load(kEmbeddingGemma, {.threads = 2}, kSimilarityTask);
  const std::vector<IsolationExample> examples = {small_example()};
  IsolationRunOptions options;
  options.plan.conditions = {Condition::kSemantic};
  options.plan.max_tokens = 10;
  const std::vector<IsolationPlan> plans = {
      make_plan(examples[0], options.plan, engine->tokenizer())};
  ScratchFolder scratch;
  {
    IsolationFolder run(scratch.path() / "run",
                        run_description(*engine, examples, plans, options, &embedder));
    run_isolation(engine, examples, plans, options, run);
    measure_with_model(engine, examples, plans, options.plan, run, &embedder);
  }
  const IsolationFolder folder(scratch.path() / "run");

  const RecordKey key = {"small", "semantic", "A"};
  const std::vector<float> made = embedder.embed(folder.find(key)->text),
                           expected = embedder.embed("The ship has two masts.");
  EXPECT_NEAR(folder.measures().at(key).measures.at("similarity"),
              std::inner_product(made.begin(), made.end(), expected.begin(), 0.0), 1e-6);

  // 2048 tokens, of which the prompt and what stands around a text take 34.
  check_lengths(embedder, plans, 2014);
  EXPECT_THROW(check_lengths(embedder, plans, 2015), Error);
  std::vector<IsolationPlan> longer = plans;
  longer[0].conditions[0].outputs[0].expected = std::string(2015, '\1');
  EXPECT_THROW(check_lengths(embedder, longer, 10), Error);

  // A run goes on with the same embedder only.
  const auto go_on = [&](const TextEmbedder* with) {
    IsolationFolder(scratch.path() / "run",
                    run_description(*engine, examples, plans, options, with));
  };
  go_on(&embedder);
  EXPECT_THROW(go_on(nullptr), Error);
  const TextEmbedder clustering = TextEmbedder::load(kEmbeddingGemma, {}, kClusteringTask);
  EXPECT_THROW(go_on(&clustering), Error);
}

}  // namespace
}  // namespace lapidary
