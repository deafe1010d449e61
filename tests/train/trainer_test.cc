// The whole of training, on the built-in model.
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/config.h"
#include "lapidary/error.h"
#include "lapidary/train.h"

#include "base/json.h"
#include "io/safetensors.h"
#include "report/report.h"
#include "train/lora.h"
#include "train/run_report.h"
#include "train/trainer_case.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMatrices = 7 * 7;  // of the built-in model

std::vector<Json> ranks(const fs::path& run) {
  std::vector<Json> lines;
  std::ifstream in(run / "ranks.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

TEST_P(TrainerTest, LearnsABatchByHeart) {
  TrainOptions o = options("run");
  o.iterations = 30;
  o.batch_size = 3;
  o.reset_every = 15;
  o.reset_warmup = 5;
  if (o.method == TrainMethod::kRelora) o.schedule = "jagged";  // without, it diverges
  if (o.method == TrainMethod::kLora || o.method == TrainMethod::kRelora) o.learning_rate = 1e-2;
  std::vector<double> losses;
  const TrainResult result =
      train(o, {}, {{}, [&](const TrainStep& s) { losses.push_back(s.loss); }});
  ASSERT_EQ(losses.size(), 30u);
  EXPECT_LT(losses.back(), 0.6 * losses.front());
  EXPECT_EQ(result.steps, 30);
  EXPECT_TRUE(fs::exists(result.output));
}

TEST_P(TrainerTest, StoppedAndResumedEqualsNeverStopped) {
  TrainOptions whole = options("whole");
  whole.dropout = whole.method == TrainMethod::kLora ? 0.1 : 0;
  whole.rank_every = 3;
  train(whole);

  TrainOptions parts = whole;
  parts.run = folder_.path() / "parts";
  for (const int64_t stop_at : {2, 5}) {
    std::stop_source stop;
    EXPECT_THROW(train(parts, {{}, stop.get_token()},
                       {{},
                        [&](const TrainStep& s) {
                          if (s.step == stop_at) stop.request_stop();
                        }}),
                 Error);
    parts.resume = true;
  }
  struct Killed {};  // with the lines of steps that no state has
  EXPECT_THROW(train(parts, {},
                     {{},
                      [](const TrainStep& s) {
                        if (s.step == 7) throw Killed();
                      }}),
               Killed);
  parts.threads = 1;
  train(parts);
  EXPECT_EQ(state_of(parts.run), state_of(whole.run));
  EXPECT_EQ(contents(parts.run / "adapter/adapter_model.safetensors"),
            contents(whole.run / "adapter/adapter_model.safetensors"));
  EXPECT_EQ(contents(parts.run / "model/model.safetensors"),
            contents(whole.run / "model/model.safetensors"));
  EXPECT_EQ(contents(parts.run / "ranks.jsonl"), contents(whole.run / "ranks.jsonl"));
  EXPECT_EQ(ranks(whole.run).size(), 3 * kMatrices);  // after 3, 6 and 8 steps
  std::ifstream metrics(parts.run / "metrics.jsonl");
  int64_t lines = 0;
  for (std::string line; std::getline(metrics, line);) ++lines;
  EXPECT_EQ(lines, 8);
}

TEST_P(TrainerTest, CheckpointsAndMicroBatchesAreMemoryAlone) {
  TrainOptions one = options("one");
  one.iterations = 3;
  one.micro_batch = 2;
  TrainOptions other = one;
  other.run = folder_.path() / "other";
  other.checkpoint_layers = 2;
  train(one);
  train(other);
  EXPECT_EQ(state_of(other.run), state_of(one.run));
}

TEST_P(TrainerTest, MeasuringRanksChangesNothing) {
  TrainOptions plain = options("plain");
  plain.iterations = 4;
  TrainOptions measured = plain;
  measured.run = folder_.path() / "measured";
  measured.rank_every = 2;
  const TrainResult a = train(plain), b = train(measured);
  const fs::path file =
      a.output.filename() == "adapter" ? "adapter_model.safetensors" : "model.safetensors";
  ASSERT_FALSE(contents(a.output / file).empty());
  EXPECT_EQ(contents(a.output / file), contents(b.output / file));
  EXPECT_FALSE(fs::exists(plain.run / "ranks.jsonl"));
}

// By gradients alone an update is a sum of products of rank 4: of one, of one for each merge and
// the one begun since, or of one for each step.
TEST_P(TrainerTest, RanksAreThoseOfWhatWasAdded) {
  TrainOptions o = options("run");
  o.optimizer = "sgd";
  o.weight_decay = 0;
  o.learning_rate = 0.5;
  o.iterations = 6;
  o.reset_every = 4;
  o.merge_every = 1;
  o.rank_every = 2;
  train(o);
  const bool relora = o.method == TrainMethod::kRelora, rank1 = o.method == TrainMethod::kRank1;
  const bool full = o.method == TrainMethod::kFull;
  const std::vector<Json> lines = ranks(o.run);
  EXPECT_EQ(lines.size(), 3 * kMatrices);
  for (const Json& line : lines) {
    const auto step = line["step"].get<int64_t>();
    EXPECT_EQ(line["merges"], relora ? step / 4 : rank1 ? step : 0);
    const int64_t products = relora ? (step + 3) / 4 : rank1 ? step : 1;
    const auto rank = line["numerical_rank"].get<int64_t>();
    if (full)
      EXPECT_GT(rank, 24) << line["matrix"];
    else
      EXPECT_EQ(rank, 4 * products) << line["matrix"] << " after " << step;
    EXPECT_LE(line["stable_rank"], line["effective_rank"]);
    EXPECT_LE(line["effective_rank"].get<double>(), static_cast<double>(rank) + 1e-9);
    EXPECT_EQ(line["right_angle"].is_null(), step == 2);
    // Rounding of the weights, 2^-24 of them, is below a thousandth of the step.
    const double cosine = line["update_cosine"];
    EXPECT_GT(cosine, full ? 1 - 1e-6 : 0);
    EXPECT_LE(cosine, full ? 1 + 1e-12 : 0.9999);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, TrainerTest,
                         ::testing::Values(TrainMethod::kFull, TrainMethod::kLora,
                                           TrainMethod::kRelora, TrainMethod::kRank1),
                         [](const auto& test) { return std::string(name_of(test.param)); });

class DoraTest : public TrainerTest {};

TEST_P(DoraTest, LearnsAndGoesOnAsIfItHadNeverStopped) {
  TrainOptions whole = options("whole");
  whole.dora = true;
  whole.learning_rate = 1e-2;
  whole.dropout = 0.1;
  std::vector<double> losses;
  train(whole, {}, {{}, [&](const TrainStep& s) { losses.push_back(s.loss); }});
  EXPECT_LT(losses.back(), 0.9 * losses.front());

  TrainOptions parts = whole;
  parts.run = folder_.path() / "parts";
  std::stop_source stop;
  EXPECT_THROW(train(parts, {{}, stop.get_token()},
                     {{},
                      [&](const TrainStep& s) {
                        if (s.step == 4) stop.request_stop();
                      }}),
               Error);
  parts.resume = true;
  parts.threads = 1;
  train(parts);
  EXPECT_EQ(state_of(parts.run), state_of(whole.run));
  const fs::path adapter = "adapter/adapter_model.safetensors";
  EXPECT_EQ(contents(parts.run / adapter), contents(whole.run / adapter));
  EXPECT_NE(contents(whole.run / adapter).find("lora_magnitude_vector"), std::string::npos);
}

TEST_P(DoraTest, IsOfLoraAlone) {
  TrainOptions o = options("run");
  o.dora = true;
  o.method = TrainMethod::kFull;
  EXPECT_EQ(error_of([&] { train(o); }), "--dora: is of --method lora, found full");
}

INSTANTIATE_TEST_SUITE_P(Lora, DoraTest, ::testing::Values(TrainMethod::kLora));

class SetBlockTest : public TrainerTest {
 protected:
  TrainOptions options(const std::string& run) const {
    TrainOptions o = TrainerTest::options(run);
    o.objective = TrainObjective::kSetBlock;
    o.block_max = 6;
    if (o.method == TrainMethod::kLora || o.method == TrainMethod::kRelora) o.learning_rate = 1e-2;
    return o;
  }
};

// The same three rows in each step, masked anew.
TEST_P(SetBlockTest, BothTermsFall) {
  TrainOptions o = options("run");
  o.iterations = 60;
  o.batch_size = 3;
  o.valid_fraction = 0.3;
  o.eval_every = 30;
  std::vector<TrainStep> steps;
  const TrainResult result = train(o, {}, {{}, [&](const TrainStep& s) { steps.push_back(s); }});
  // Of ten steps, since each masks others.
  const auto mean = [&](size_t first, auto term) {
    double sum = 0;
    for (size_t i = first; i < first + 10; ++i) sum += term(*steps[i].set_block) / 10;
    return sum;
  };
  const auto next = [](const SetBlockLoss& loss) { return loss.next; };
  const auto masked = [](const SetBlockLoss& loss) { return loss.masked.value(); };
  ASSERT_EQ(steps.size(), 60u);
  EXPECT_LT(mean(50, next), 0.6 * mean(0, next));
  EXPECT_LT(mean(50, masked), 0.6 * mean(0, masked));
  for (const TrainStep& s : steps) {
    EXPECT_GE(s.block, 2);
    EXPECT_LE(s.block, 6);
    EXPECT_NEAR(s.loss, s.set_block->next + s.set_block->masked_share * *s.set_block->masked, 1e-9);
  }
  ASSERT_TRUE(result.valid_set_block.has_value());
  const Json line =
      Json::parse(contents(o.run / "metrics.jsonl")
                      .substr(contents(o.run / "metrics.jsonl").rfind("{\"step\":60")));
  for (const char* key :
       {"ntp_loss", "matp_loss", "masked_share", "block_size", "valid_ntp_loss", "valid_matp_loss"})
    EXPECT_TRUE(line.contains(key)) << key;
  EXPECT_NE(contents(o.run / "report.html").find("Terms of the loss"), std::string::npos);
}

TEST_P(SetBlockTest, StoppedAndResumedEqualsNeverStopped) {
  const auto drawn = [](const fs::path& run) {
    std::vector<std::pair<int64_t, double>> steps;  // block and share of masked tokens
    std::ifstream in(run / "metrics.jsonl");
    for (std::string line; std::getline(in, line);)
      steps.emplace_back(Json::parse(line)["block_size"], Json::parse(line)["masked_share"]);
    return steps;
  };
  const TrainOptions whole = options("whole");
  train(whole);
  TrainOptions parts = whole;
  parts.run = folder_.path() / "parts";
  parts.save_every = 3;
  struct Killed {};  // with the lines of steps that no state has
  for (const int64_t killed_at : {5, 7}) {
    EXPECT_THROW(train(parts, {},
                       {{},
                        [&](const TrainStep& s) {
                          if (s.step == killed_at) throw Killed();
                        }}),
                 Killed);
    parts.resume = true;
  }
  parts.threads = 1;
  parts.checkpoint_layers = 2;
  train(parts);
  EXPECT_EQ(state_of(parts.run), state_of(whole.run));
  ASSERT_EQ(drawn(whole.run).size(), 8u);
  EXPECT_EQ(drawn(parts.run), drawn(whole.run));
}

// The draws are those of a document, whatever rows go through the model with it: sums of a few
// hundred f32 terms in another order are all that differs.
TEST_P(SetBlockTest, MicroBatchesDrawTheSame) {
  TrainOptions o = options("one");
  o.iterations = 1;
  o.micro_batch = 1;
  TrainOptions other = o;
  other.run = folder_.path() / "other";
  other.micro_batch = 2;
  const TrainResult a = train(o), b = train(other);
  EXPECT_NEAR(a.set_block->next, b.set_block->next, 1e-6);
  EXPECT_NEAR(*a.set_block->masked, *b.set_block->masked, 1e-6);
  EXPECT_EQ(a.set_block->masked_share, b.set_block->masked_share);
}

TEST_P(SetBlockTest, TheResultSaysSo) {
  TrainOptions o = options("run");
  o.iterations = 1;
  o.mask_token = "<unused0>";
  const TrainResult result = train(o);
  const bool adapter = o.method == TrainMethod::kLora;
  const Json config =
      read_json_file(result.output / (adapter ? "adapter_config.json" : "config.json"));
  EXPECT_EQ(config["set_block"], (Json{{"mask_token_id", 6}, {"block_min", 2}, {"block_max", 6}}));
  o = TrainerTest::options("plain");
  o.iterations = 1;
  const std::string plain =
      contents(train(o).output / (adapter ? "adapter_config.json" : "config.json"));
  EXPECT_FALSE(plain.empty());
  EXPECT_EQ(plain.find("set_block"), std::string::npos);
}

TEST_P(SetBlockTest, DataWithTheMaskIsRefused) {
  TrainOptions o = options("run");
  std::ofstream(o.data) << "one\ntwo\nthree <mask> four\n";
  EXPECT_EQ(error_of([&] { train(o); }, folder_.path().string()),
            "/text.txt:3: has the token 4 ('<mask>'), which stands for masked ones");
  o.data = folder_.path() / "lines.jsonl";
  std::ofstream(o.data) << "{\"text\": \"one\"}\n{\"text\": \"two <mask>\"}\n";
  EXPECT_EQ(error_of([&] { train(o); }, folder_.path().string()),
            "/lines.jsonl:2: has the token 4 ('<mask>'), which stands for masked ones");
  o.mask_token = "<unused0>";
  o.iterations = 1;
  EXPECT_EQ(train(o).steps, 1);
}

INSTANTIATE_TEST_SUITE_P(Methods, SetBlockTest,
                         ::testing::Values(TrainMethod::kFull, TrainMethod::kLora,
                                           TrainMethod::kRelora, TrainMethod::kRank1),
                         [](const auto& test) { return std::string(name_of(test.param)); });

class DirectionsTest : public TrainerTest {
 protected:
  std::vector<double> losses(TrainOptions o, const std::string& run) {
    o.run = folder_.path() / run;
    o.optimizer = "sgd";
    o.learning_rate = 0.1;
    o.weight_decay = 0;
    o.max_grad_norm = 0;
    o.iterations = 2;
    o.merge_every = 1;
    o.train_embeddings = o.train_norms = true;
    o.compute = Compute::kExact;  // operands of bf16 would hide what directions do
    std::vector<double> list;
    train(o, {}, {{}, [&](const TrainStep& s) { list.push_back(s.loss); }});
    return list;
  }
};

// No matrix of the built-in model has a rank above 256. Gradients that went through orthonormal
// directions are off by some 256 * 2^-24 of their norm, and the losses by less than they move.
TEST_P(DirectionsTest, AsManyAsAMatrixHasAreGradientDescent) {
  TrainOptions full = options("full");
  full.method = TrainMethod::kFull;
  const std::vector<double> expected = losses(full, "full");
  ASSERT_GT(std::abs(expected.front() - expected.back()), 0.01) << "nothing was learned";
  TrainOptions o = options("all");
  o.directions = Directions::kAligned;
  o.rank = 256;
  const std::vector<double> all = losses(o, "all");
  o.rank = 2;
  const std::vector<double> few = losses(o, "few");
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(all[i], expected[i], 1e-4) << i;
  EXPECT_GT(std::abs(few.back() - expected.back()), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Rank1, DirectionsTest, ::testing::Values(TrainMethod::kRank1));

TEST(LoraTargets, ArePatternsWithinLayersOrWithThem) {
  const Config config = read_config(fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny");
  const auto count = [&](const std::vector<std::string>& targets) {
    return std::ssize(lora_targets(config, {.targets = targets}));
  };
  const int64_t layers = config.num_hidden_layers;
  EXPECT_EQ(count({}), 7 * layers);
  EXPECT_EQ(count({"q_proj", "mlp.*"}), 4 * layers);
  EXPECT_EQ(count({"layers.*"}), 7 * layers);
  EXPECT_EQ(lora_targets(config, {.targets = {"layers.2.self_attn.?_proj"}}),
            (std::vector<std::string>{
                "model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.k_proj",
                "model.layers.2.self_attn.v_proj", "model.layers.2.self_attn.o_proj"}));
}

class ResetTest : public TrainerTest {};

TEST_P(ResetTest, TheOptimizerBeginsAnewWithTheDirections) {
  TrainOptions o = options("run");
  o.iterations = 4;
  o.merge_every = 2;
  o.reset_optimizer = true;
  const auto steps = [&] {
    const SafetensorsFile file = SafetensorsFile::open(o.run / "state/step-00000004.safetensors");
    std::set<std::byte> bytes;
    for (const std::byte byte : file.find("step")->bytes) bytes.insert(byte);
    return bytes;
  };
  train(o);
  EXPECT_EQ(steps(), std::set{std::byte{0}});
  o.run = folder_.path() / "kept";
  o.reset_optimizer = false;
  train(o);
  EXPECT_TRUE(steps().contains(std::byte{4}));
}

INSTANTIATE_TEST_SUITE_P(Rank1, ResetTest, ::testing::Values(TrainMethod::kRank1));

TEST_P(TrainerTest, TracksWhatIsLearntByHeart) {
  TrainOptions o = options("whole");
  o.valid_fraction = 0.3;
  o.eval_every = 4;
  o.track_memorization = 2;
  const TrainResult result = train(o);
  ASSERT_TRUE(result.memorization.has_value());
  EXPECT_GT(result.memorization->bits, 0);
  ASSERT_TRUE(result.memorization->auc.has_value());
  ASSERT_TRUE(result.memorization->valid_extraction_rate.has_value());
  std::vector<Json> measured;
  std::ifstream in(o.run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);)
    if (Json json = Json::parse(line); json.contains("memorized_bits")) measured.push_back(json);
  ASSERT_EQ(measured.size(), 2u);
  EXPECT_LT(measured[0]["memorized_bits"], measured[1]["memorized_bits"]);
  EXPECT_EQ(measured[1]["memorized_bits"], result.memorization->bits);
  EXPECT_EQ(measured[1]["extraction_rate"], result.memorization->extraction_rate);
  EXPECT_EQ(measured[1]["valid_extraction_rate"], *result.memorization->valid_extraction_rate);
  const std::string page = render(run_report(o.run), ReportFormat::kHtml);
  EXPECT_NE(page.find("Sequences that greedy decoding completes"), std::string::npos);

  // The reference is the model before the first step, also to a run that is taken up.
  o.run = folder_.path() / "stopped";
  std::stop_source stop;
  TrainEvents events;
  events.step = [&](const TrainStep& step) {
    if (step.step == 5) stop.request_stop();
  };
  EXPECT_THROW(train(o, Watch{{}, stop.get_token()}, events), Error);
  o.resume = true;
  EXPECT_EQ(train(o).memorization->bits, result.memorization->bits);
}

}  // namespace
}  // namespace lapidary
