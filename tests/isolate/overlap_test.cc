// BLEU, chrF, ROUGE and the stemmer against sacrebleu, rouge-score and NLTK
// (tools/make_metrics_golden.py).
#include "isolate/overlap.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "isolate/characters.h"
#include "isolate/golden.h"
#include "isolate/stem.h"
#include "isolate/words.h"

namespace lapidary {
namespace {

constexpr double kBound = 1e-9;  // of figures up to 100: sums of a few rounded terms

void expect_rouge(const RougeScore& score, const Json& golden, const std::string& which) {
  EXPECT_TRUE(within(score.precision, golden[0], kBound)) << which;
  EXPECT_TRUE(within(score.recall, golden[1], kBound)) << which;
  EXPECT_TRUE(within(score.f1, golden[2], kBound)) << which;
}

TEST(OverlapGolden, PairsEqualThePackages) {
  const Json golden = metrics_golden("overlap.json")["pairs"];
  ASSERT_GE(golden.size(), 100u);
  for (const Json& pair : golden) {
    const std::string hypothesis = pair["hypothesis"], reference = pair["reference"];
    const std::string which = "'" + hypothesis + "' of '" + reference + "'";
    const Bleu bleu = sentence_bleu(hypothesis, reference);
    EXPECT_TRUE(within(bleu.score, pair["bleu"], kBound)) << which;
    EXPECT_TRUE(within(bleu.brevity_penalty, pair["brevity_penalty"], kBound)) << which;
    for (size_t n = 0; n < 4; ++n)
      EXPECT_TRUE(within(bleu.precisions[n], pair["precisions"][n], kBound)) << which;
    EXPECT_EQ(bleu.hypothesis_tokens, pair["tokens"][0]) << which;
    EXPECT_EQ(bleu.reference_tokens, pair["tokens"][1]) << which;
    EXPECT_TRUE(within(chrf(hypothesis, reference), pair["chrf"], kBound)) << which;
    for (const bool stem : {false, true}) {
      const Rouge scores = rouge(hypothesis, reference, stem);
      const Json& expected = pair[stem ? "rouge_stemmed" : "rouge"];
      expect_rouge(scores.one, expected[0], which);
      expect_rouge(scores.two, expected[1], which);
      expect_rouge(scores.l, expected[2], which);
    }
  }
}

TEST(OverlapGolden, CorporaEqualThePackages) {
  const Json golden = metrics_golden("overlap.json");
  std::vector<std::string> texts;
  for (const Json& pair : golden["pairs"]) {
    texts.push_back(pair["hypothesis"]);
    texts.push_back(pair["reference"]);
  }
  for (const Json& corpus : golden["corpora"]) {
    std::vector<TextPair> pairs;
    for (size_t i = corpus["first"], end = i + corpus["count"].get<size_t>(); i < end; ++i)
      pairs.push_back({texts.at(2 * i), texts.at(2 * i + 1)});
    EXPECT_TRUE(within(corpus_bleu(pairs).score, corpus["bleu"], kBound)) << corpus["first"];
    EXPECT_TRUE(within(corpus_chrf(pairs), corpus["chrf"], kBound)) << corpus["first"];
  }
}

TEST(OverlapGolden, StemsEqualNltks) {
  const Json golden = metrics_golden("overlap.json")["stems"];
  ASSERT_GE(golden.size(), 300u);
  for (const Json& pair : golden)
    EXPECT_EQ(porter_stem(pair[0]), pair[1].get<std::string>()) << pair[0];
}

TEST(Overlap, BytesThatAreNotUtf8AreCharactersOfTheirOwn) {
  EXPECT_EQ(characters("a\xff\xc3")[1].code, 0xdcffu);
  EXPECT_DOUBLE_EQ(chrf("\xff\xfe\xfd", "\xff\xfe\xfd"), 100);
  EXPECT_DOUBLE_EQ(sentence_bleu("a \xc3.", "a \xc3.").score, 100);
  EXPECT_DOUBLE_EQ(rouge("a\xff"
                         "b",
                         "a b")
                       .one.f1,
                   1);
}

TEST(Overlap, OfAnEmptyCorpusIsZero) {
  EXPECT_EQ(corpus_bleu({}).score, 0);
  EXPECT_EQ(corpus_chrf({}), 0);
}

TEST(Repetition, CountsWhatStoodBefore) {
  const Repetition none = repetition("One two three four five six.");
  EXPECT_EQ(none.words, 6);
  EXPECT_EQ(none.repeated_4grams, 0);
  EXPECT_EQ(none.repeated_tail, 0);
  // 9 words have 6 4-grams, of which abca, bcab and cabc stand before.
  const Repetition loop = repetition("a b c a b c a b c");
  EXPECT_DOUBLE_EQ(loop.repeated_4grams, 0.5);
  EXPECT_EQ(loop.repeated_tail, 6);
  const Repetition tail = repetition("x the end, he said, y the end, he said");
  EXPECT_EQ(tail.repeated_tail, 4);
  EXPECT_DOUBLE_EQ(tail.repeated_4grams, 1.0 / 7);
  EXPECT_EQ(repetition("").words, 0);
  EXPECT_EQ(repetition("a a").repeated_tail, 1);
  EXPECT_EQ(repetition("a a").repeated_4grams, 0);
}

}  // namespace
}  // namespace lapidary
