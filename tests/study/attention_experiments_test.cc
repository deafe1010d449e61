// Experiments on attention: weights on disk, figures by length, layers that see as far as others.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/attention_study.h"
#include "lapidary/session.h"

#include "base/json.h"
#include "base/rng.h"
#include "io/test_files.h"
#include "study/golden_models.h"
#include "study/pieces.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

std::vector<Token> random_ids(size_t count, int vocabulary) {
  const CounterRng rng(7);
  std::vector<Token> ids = {2};
  while (ids.size() < count)
    ids.push_back(
        static_cast<Token>(3 + rng.bits(ids.size()) % static_cast<uint64_t>(vocabulary - 3)));
  return ids;
}

class SavedPatterns : public GoldenModel {};
INSTANTIATE_TEST_SUITE_P(Models, SavedPatterns, kGoldenModels, golden_name);

TEST_P(SavedPatterns, AreThoseOfTheReference) {
  const ScratchFolder scratch;
  const fs::path file = scratch.path() / "patterns.safetensors";
  const std::vector<int> heads = {3, 1};  // in the order that was asked for
  study_attention(engine, ids, {.patterns = {.file = file, .heads = heads}});
  const SafetensorsFile saved = SafetensorsFile::open(file);
  EXPECT_EQ(saved.metadata().at("heads"), "3,1");
  EXPECT_EQ(std::ssize(saved.tensors()), engine->config().num_hidden_layers);
  const auto square = ids.size() * ids.size();
  int compared = 0;
  for (int layer = 0; layer < engine->config().num_hidden_layers; ++layer) {
    const std::string name = fmt::format("blocks.{}.attn.hook_pattern", layer);
    const TensorView* got = saved.find(name);
    ASSERT_NE(got, nullptr) << name;
    const auto length = std::ssize(ids);
    ASSERT_EQ(got->shape, (std::vector<int64_t>{2, length, length}));
    const TensorView* expected = golden->find(name);
    if (expected == nullptr) continue;
    const std::vector<float> mine = floats(*got), theirs = floats(*expected);
    for (size_t h = 0; h < heads.size(); ++h)
      for (size_t i = 0; i < square; ++i)
        ASSERT_NEAR(mine[h * square + i], theirs[static_cast<size_t>(heads[h]) * square + i], 1e-5)
            << name << " head " << heads[h] << " at " << i;
    ++compared;
  }
  EXPECT_GE(compared, 2);
}

// More queries than a block and than the window of local layers: zeros where nothing is seen.
TEST(PatternFile, RowsAddUpToOneWithinTheWindow) {
  const auto engine = Engine::load(kTiny, {.threads = 2});
  const std::vector<Token> ids = random_ids(150, engine->config().vocab_size);
  const ScratchFolder scratch;
  const fs::path file = scratch.path() / "patterns.safetensors";
  study_attention(engine, ids, {.patterns = {.file = file, .layers = {5, 0}, .heads = {2}}});
  const SafetensorsFile saved = SafetensorsFile::open(file);
  ASSERT_EQ(saved.tensors().size(), 2u);
  for (const int layer : {0, 5}) {
    const auto weights = floats(*saved.find(fmt::format("blocks.{}.attn.hook_pattern", layer)));
    ASSERT_EQ(weights.size(), ids.size() * ids.size());
    const int64_t window =
        engine->config().is_sliding(layer) ? engine->config().sliding_window : 150;
    for (int64_t query = 0; query < 150; ++query) {
      double sum = 0;
      for (int64_t key = 0; key < 150; ++key) {
        const float w = weights[static_cast<size_t>(query * 150 + key)];
        sum += w;
        EXPECT_EQ(w > 0, key <= query && key > query - window)
            << layer << " " << query << " " << key;
      }
      EXPECT_NEAR(sum, 1, 1e-5);
    }
  }
}

TEST(PatternFile, SaysWhatIsNotThere) {
  const auto engine = Engine::load(kTiny, {});
  const ScratchFolder scratch;
  const auto saving = [&](std::vector<int> layers, std::vector<int> heads, const char* name) {
    return error_of([&] {
      study_attention(engine, std::vector<Token>{2, 3, 4},
                      {.patterns = {scratch.path() / name, std::move(layers), std::move(heads)}});
    });
  };
  EXPECT_EQ(saving({7}, {}, "a"), "layer 7: the model has 7, counted from 0");
  EXPECT_EQ(saving({}, {-1}, "a"), "head -1: the model has 4, counted from 0");
  EXPECT_EQ(saving({2, 2}, {}, "a"), "layer 2: given twice");
  EXPECT_NE(saving({}, {}, "no/such/a").find("no/such/a"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

// The last queries of a text as study_attention sees them: its sums over all of them, less those
// over the shorter text without them.
TEST(AttentionByLength, IsTheMeanOverTheLastQueries) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  std::vector<Token> ids = random_ids(100, 400);  // some tokens come again
  ids.insert(ids.end(), ids.begin() + 1, ids.end());
  ids.resize(150);
  const AttentionByLength study =
      attention_by_length(engine, ids, {.lengths = {40, 150}, .queries = 30});
  EXPECT_EQ(study.pieces, 1);
  EXPECT_EQ(study.queries, 20);  // half of the shortest
  ASSERT_EQ(study.heads.size(), 2u);
  const auto whole = study_attention(engine, ids);
  const auto short_by = study_attention(engine, std::span(ids).first(130));
  std::vector<Token> near = {2};
  near.insert(near.end(), ids.end() - 39, ids.end());
  const auto near_whole = study_attention(engine, near);
  const auto near_short = study_attention(engine, std::span(near).first(20));
  const auto last = [](const HeadFigures& a, double n, const HeadFigures& b, double m,
                       double HeadFigures::*f) { return (a.*f * n - b.*f * m) / (n - m); };
  for (size_t i = 0; i < whole.heads.size(); ++i)
    for (const auto figure :
         {&HeadFigures::entropy, &HeadFigures::effective_keys, &HeadFigures::distance,
          &HeadFigures::sink, &HeadFigures::previous, &HeadFigures::self}) {
      EXPECT_NEAR(study.heads[1][i].*figure,
                  last(whole.heads[i], 149, short_by.heads[i], 129, figure), 1e-4);
      EXPECT_NEAR(study.heads[0][i].*figure,
                  last(near_whole.heads[i], 39, near_short.heads[i], 19, figure), 1e-4);
    }
  // Of a kind: means over its heads, and the head with the most.
  double entropy = 0, induction = 0, heads = 0;
  for (const HeadFigures& h : study.heads[1]) {
    if (engine->config().is_sliding(h.layer)) continue;
    entropy += h.entropy, heads += 1;
    induction = std::max(induction, *h.induction);
  }
  const auto at = std::ranges::find_if(
      study.kinds, [](const AttentionAtLength& k) { return k.length == 150 && !k.sliding; });
  ASSERT_NE(at, study.kinds.end());
  EXPECT_NEAR(at->entropy.mean, entropy / heads, 1e-12);
  EXPECT_FALSE(at->entropy.margin);
  EXPECT_NEAR(at->best_induction->mean, induction, 1e-12);
}

TEST(AttentionByLength, MeansAndMarginsAreOverPieces) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  const std::vector<Token> ids = random_ids(1 + 3 * 63 + 40, 200);  // some come again
  const LengthOptions options{.lengths = {16, 64}, .queries = 8};
  const AttentionByLength all = attention_by_length(engine, ids, options);
  EXPECT_EQ(all.pieces, 3);
  std::vector<double> entropies;
  double head = 0, induction = 0, repeating = 0;  // of the last head
  for (size_t piece = 0; piece < 3; ++piece) {
    std::vector<Token> one = {2};
    one.insert(one.end(), ids.begin() + 1 + static_cast<int64_t>(63 * piece),
               ids.begin() + 1 + static_cast<int64_t>(63 * (piece + 1)));
    const AttentionByLength study = attention_by_length(engine, one, options);
    entropies.push_back(study.kinds[0].entropy.mean);
    head += study.heads[1].back().entropy / 3;
    if (!study.heads[1].back().induction) continue;
    repeating += 1, induction += *study.heads[1].back().induction;
  }
  EXPECT_NEAR(all.heads[1].back().entropy, head, 1e-12);
  ASSERT_GT(repeating, 0);
  EXPECT_NEAR(*all.heads[1].back().induction, induction / repeating, 1e-12);
  const double mean = (entropies[0] + entropies[1] + entropies[2]) / 3;
  double squares = 0;
  for (const double e : entropies) squares += (e - mean) * (e - mean);
  EXPECT_NEAR(all.kinds[0].entropy.mean, mean, 1e-12);
  // 4.302653 of Student's t with 2 degrees of freedom.
  EXPECT_NEAR(*all.kinds[0].entropy.margin, 4.302652729911275 * std::sqrt(squares / 2 / 3), 1e-9);
}

TEST(AttentionByLength, SaysWhatIsWrong) {
  const auto engine = Engine::load(kTiny, {});
  const std::vector<Token> ids(100, 5);
  const auto of = [&](std::vector<int64_t> lengths) {
    return error_of([&] { attention_by_length(engine, ids, {.lengths = std::move(lengths)}); });
  };
  EXPECT_EQ(of({3}), "lengths: 3 given, expected more than 3");
  EXPECT_EQ(of({64, 32}), "lengths: 32 given, expected more than 64");
  EXPECT_EQ(of({64, 4096}), "lengths: 4096 given, the model was made for 2048");
  EXPECT_EQ(of({64, 128}), "a text of 100 tokens, expected 128 or more to read at once");
}

TEST(Pieces, ShareTheBeginningAndNothingElse) {
  const auto engine = Engine::load(kTiny, {});
  const std::vector<Token> text = {2, 10, 11, 12, 13, 14, 15, 16};
  using List = std::vector<std::vector<Token>>;
  EXPECT_EQ(pieces_of(*engine, text, 4), (List{{2, 10, 11, 12}, {2, 13, 14, 15}}));
  EXPECT_EQ(pieces_of(*engine, std::span(text).subspan(1), 3), (List{{10, 11, 12}, {13, 14, 15}}));
  EXPECT_EQ(pieces_of(*engine, text, 8), (List{text}));
  EXPECT_THROW(pieces_of(*engine, text, 9), Error);
}

// A Gemma 2, whose layers all rotate alike: the same folder with other layer_types is the oracle of
// a session with them, and that folder agrees with the reference (golden_test.cc).
class OtherReach : public ::testing::Test {
 protected:
  OtherReach() {
    fs::copy(kGolden / "gemma2-gqa", folder(), fs::copy_options::recursive);
    engine = Engine::load(kGolden / "gemma2-gqa", {.compute = Compute::kExact, .threads = 2});
    ids = random_ids(90, engine->config().vocab_size);
  }
  fs::path folder() const { return scratch.path() / "other"; }
  std::shared_ptr<const Engine> with_types(const std::vector<LayerType>& types) const {
    nlohmann::json config = read_json_file(kGolden / "gemma2-gqa/config.json");
    config["layer_types"] = nlohmann::json::array();
    for (const LayerType type : types)
      config["layer_types"].push_back(type == LayerType::kSliding ? "sliding_attention"
                                                                  : "full_attention");
    std::ofstream(folder() / "config.json") << config.dump();
    return Engine::load(folder(), {.compute = Compute::kExact, .threads = 2});
  }
  // -ln p of the tokens after the first 17, the mean.
  static double far_nll(Session session, std::span<const Token> text) {
    std::vector<std::vector<float>> rows;
    session.score(text.first(text.size() - 1), [&](int64_t, std::span<const float> logits) {
      rows.emplace_back(logits.begin(), logits.end());
    });
    double sum = 0;
    for (size_t i = 16; i < rows.size(); ++i) {
      double exponentials = 0;
      for (const float l : rows[i]) exponentials += std::exp(double{l});
      sum += std::log(exponentials) - rows[i][static_cast<size_t>(text[i + 1])];
    }
    return sum / static_cast<double>(rows.size() - 16);
  }

  ScratchFolder scratch;
  std::shared_ptr<const Engine> engine;
  std::vector<Token> ids;
};

TEST_F(OtherReach, IsThatOfAModelWithTheseLayers) {
  using enum LayerType;
  for (const std::vector<LayerType>& types : {std::vector{kSliding, kSliding, kSliding, kSliding},
                                              std::vector{kFull, kFull, kFull, kFull},
                                              std::vector{kSliding, kFull, kSliding, kSliding}}) {
    Session session = Session::with_layer_types(engine, types);
    Session other(with_types(types)), plain(engine);
    const auto last = std::span(ids).last(40);
    session.append(std::span(ids).first(50));  // in pieces: what the cache keeps counts too
    other.append(std::span(ids).first(50));
    const auto got = session.append(last);
    EXPECT_TRUE(std::ranges::equal(got, other.append(last)));
    EXPECT_FALSE(std::ranges::equal(got, plain.append(ids)));
  }
}

TEST_F(OtherReach, AStudyMeasuresTheLossBeyondTheWindow) {
  const ReachStudy study = study_reach(engine, ids, {.piece_tokens = 45});
  EXPECT_EQ(study.pieces, 2);  // without a tokenizer there is no <bos> to repeat
  EXPECT_EQ(study.window, 16);
  EXPECT_EQ(study.predicted, 45 - 1 - 16);
  // Layers 1 and 3 made local, both; 0 and 2 made global, both.
  ASSERT_EQ(study.changes.size(), 6u);
  EXPECT_EQ(study.changes[0].layer, 1);
  EXPECT_TRUE(study.changes[0].to_local);
  EXPECT_EQ(study.changes[2].layer, -1);
  EXPECT_EQ(study.changes[3].layer, 0);
  EXPECT_FALSE(study.changes[3].to_local);
  const auto types = [&](const ReachChange& c) {
    std::vector<LayerType> list = engine->config().layer_types;
    for (size_t i = 0; i < list.size(); ++i)
      if (c.layer < 0 || c.layer == static_cast<int>(i))
        list[i] = c.to_local ? LayerType::kSliding : LayerType::kFull;
    return list;
  };
  double own[2];
  for (size_t p = 0; p < 2; ++p)
    own[p] = far_nll(Session(engine), std::span(ids).subspan(45 * p, 45));
  // The study adds up e^logit in f32, far_nll() in double.
  EXPECT_NEAR(study.nll.mean, (own[0] + own[1]) / 2, 1e-6);
  for (const ReachChange& c : study.changes) {
    const auto other = with_types(types(c));
    double gain[2];
    for (size_t p = 0; p < 2; ++p)
      gain[p] = far_nll(Session(other), std::span(ids).subspan(45 * p, 45)) - own[p];
    EXPECT_NEAR(c.gain.mean, (gain[0] + gain[1]) / 2, 1e-6);
    EXPECT_GT(std::abs(c.gain.mean), 1e-3);
    // 12.7062 of Student's t with 1 degree of freedom; of two values, the error is half their
    // difference.
    EXPECT_NEAR(*c.gain.margin, 12.706204736432095 * std::abs(gain[0] - gain[1]) / 2, 1e-5);
  }
}

TEST_F(OtherReach, SaysWhatCannotBe) {
  const auto study = [&](const Engine& e, int64_t piece) {
    return error_of([&] { study_reach(e.shared_from_this(), ids, {.piece_tokens = piece}); });
  };
  EXPECT_NE(study(*engine, 17).find("expected 18 to 256"), std::string::npos);
  EXPECT_NE(study(*engine, 257).find("expected 18 to 256"), std::string::npos);
  EXPECT_NE(study(*engine, 91).find("a text of 90 tokens, expected 91"), std::string::npos);
  const auto gemma1 = Engine::load(kGolden / "gemma1-mqa", {});
  EXPECT_NE(study(*gemma1, 0).find("0 local and"), std::string::npos);
}

}  // namespace
}  // namespace lapidary
