#include "train/batches.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "io/test_files.h"

namespace lapidary {
namespace {

// Document d has length 2 + (7 d mod 5): <bos>, then tokens 100 d + 1, 100 d + 2 ..., of which
// every third does not count.
class Numbers : public DocumentSource {
 public:
  static int64_t length(int64_t d) { return 2 + 7 * d % 5; }
  Document read(int64_t d) const override {
    Document document;
    document.append({2}, false);
    for (int64_t i = 1; i < length(d); ++i)
      document.append({static_cast<Token>(100 * d + i)}, i % 3 != 0);
    return document;
  }
};

Dataset numbers(int64_t count) {
  std::vector<Sequence> sequences;
  for (int64_t d = 0; d < count; ++d) sequences.push_back({d, 0, Numbers::length(d)});
  return {std::make_shared<Numbers>(), std::move(sequences), {}};
}

// The documents of a batch, by their first tokens; checks all the rest.
std::vector<int64_t> documents_of(const Batch& batch) {
  std::vector<int64_t> documents;
  EXPECT_EQ(batch.targets.size(), batch.tokens.size());
  size_t at = 0;
  for (const int64_t length : batch.lengths) {
    const int64_t d = batch.tokens[at + 1] / 100;
    documents.push_back(d);
    EXPECT_EQ(length, Numbers::length(d));
    EXPECT_EQ(batch.tokens[at], 2);
    for (int64_t i = 0; i < length; ++i, ++at) {
      const bool counts = i + 1 < length && (i + 1) % 3 != 0;
      EXPECT_EQ(batch.targets[at], counts ? 100 * d + i + 1 : kNoTarget);
    }
  }
  EXPECT_EQ(at, batch.tokens.size());
  return documents;
}

std::vector<int64_t> one_epoch(const Dataset& data, BatchOptions options) {
  options.repeat = false;
  BatchStream stream(data, options);
  std::vector<int64_t> all;
  while (!stream.done()) {
    const auto documents = documents_of(stream.next());
    all.insert(all.end(), documents.begin(), documents.end());
  }
  EXPECT_TRUE(stream.next().tokens.empty());
  return all;
}

TEST(Batches, ConcatenateTheDocumentsOfTheirRows) {
  const Dataset data = numbers(5);  // lengths 2 4 6 3 5
  BatchStream stream(data, {.rows = 2, .sequence_length = 7, .shuffle = false});
  EXPECT_EQ(stream.rows_in_epoch(), 4);  // 2 + 4 | 6 | 3 | 5: 3 + 5 is more than 7
  Batch batch = stream.next();
  EXPECT_EQ(documents_of(batch), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(batch.lengths, (std::vector<int64_t>{2, 4, 6}));
  EXPECT_EQ(batch.target_count(), 1 + 2 + 4);
  EXPECT_EQ(documents_of(stream.next()), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(stream.position(), (DataPosition{0, 4}));
}

TEST(Batches, RowsAreFullToTheLastToken) {
  const Dataset data = numbers(5);
  const BatchStream stream(data, {.sequence_length = 6, .shuffle = false});
  EXPECT_EQ(stream.rows_in_epoch(), 4);  // 2 + 4 makes 6
}

TEST(Batches, WithoutPackingARowIsADocument) {
  const Dataset data = numbers(5);
  const BatchStream stream(data, {.sequence_length = 100, .packing = false});
  EXPECT_EQ(stream.rows_in_epoch(), 5);
}

TEST(Batches, EveryDocumentComesOnceInAnEpochInAnOrderBySeedAndEpoch) {
  const Dataset data = numbers(100);
  const std::vector<int64_t> first = one_epoch(data, {.rows = 3, .sequence_length = 12});
  std::vector<int64_t> sorted = first;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t d = 0; d < 100; ++d) EXPECT_EQ(sorted[static_cast<size_t>(d)], d);
  EXPECT_NE(first, sorted);
  EXPECT_EQ(one_epoch(data, {.rows = 1, .sequence_length = 12}), first);
  EXPECT_NE(one_epoch(data, {.rows = 3, .sequence_length = 12, .seed = 1}), first);
  BatchStream stream(data, {.sequence_length = 12}, {1, 0});
  std::vector<int64_t> second;
  while (stream.position().row < stream.rows_in_epoch()) {
    const auto documents = documents_of(stream.next());
    second.insert(second.end(), documents.begin(), documents.end());
  }
  EXPECT_NE(second, first);
  std::sort(second.begin(), second.end());
  EXPECT_EQ(second, sorted);
}

// Each of 4 documents comes first about as often as the others: within five standard deviations.
TEST(Batches, ShuffleFavoursNobody) {
  const Dataset data = numbers(4);
  std::map<int64_t, int> firsts, lasts;
  constexpr int kEpochs = 4000;
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    BatchStream stream(data, {.rows = 4, .sequence_length = 6, .packing = false}, {epoch, 0});
    const auto documents = documents_of(stream.next());
    ++firsts[documents.front()];
    ++lasts[documents.back()];
  }
  for (int64_t d = 0; d < 4; ++d) {
    EXPECT_NEAR(firsts[d], kEpochs / 4, 5 * std::sqrt(kEpochs * 3 / 16.0));
    EXPECT_NEAR(lasts[d], kEpochs / 4, 5 * std::sqrt(kEpochs * 3 / 16.0));
  }
}

TEST(Batches, GoOnFromAPositionAsIfTheyHadNeverStopped) {
  const Dataset data = numbers(30);
  const BatchOptions options{.rows = 4, .sequence_length = 9, .seed = 5};
  BatchStream whole(data, options);
  Json saved;
  std::vector<std::vector<Token>> rest;
  for (int i = 0; i < 20; ++i) {
    const Batch batch = whole.next();
    if (i >= 7) rest.push_back(batch.tokens);
    if (i == 6) saved = to_json(whole.position());
  }
  EXPECT_GE(whole.position().epoch, 2);
  const Json read = parse_json(saved.dump(), "state.json");
  BatchStream resumed(data, options, data_position(JsonObject(read, "state.json")));
  for (const std::vector<Token>& tokens : rest) EXPECT_EQ(resumed.next().tokens, tokens);
  EXPECT_EQ(resumed.position(), whole.position());
}

TEST(Batches, ABatchAtTheEndOfAnEpochGoesOnInTheNext) {
  const Dataset data = numbers(5);
  BatchStream stream(data, {.rows = 3, .sequence_length = 7, .shuffle = false});  // 4 rows
  stream.next();
  EXPECT_EQ(documents_of(stream.next()), (std::vector<int64_t>{4, 0, 1, 2}));
  EXPECT_EQ(stream.position(), (DataPosition{1, 2}));
}

TEST(Batches, RanksShareTheRows) {
  const Dataset data = numbers(40);
  BatchStream whole(data, {.rows = 6, .sequence_length = 9});
  BatchStream ranks[] = {{data, {.rows = 2, .sequence_length = 9, .rank = 0, .ranks = 3}},
                         {data, {.rows = 2, .sequence_length = 9, .rank = 1, .ranks = 3}},
                         {data, {.rows = 2, .sequence_length = 9, .rank = 2, .ranks = 3}}};
  for (int i = 0; i < 10; ++i) {
    std::vector<int64_t> expected = documents_of(whole.next()), all;
    for (BatchStream& rank : ranks) {
      const auto documents = documents_of(rank.next());
      all.insert(all.end(), documents.begin(), documents.end());
      EXPECT_EQ(rank.position(), whole.position());
    }
    std::sort(expected.begin(), expected.end());
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, expected);
  }
}

TEST(Batches, PositionsOfOtherDataAreRefused) {
  const Dataset data = numbers(5);
  const BatchOptions options{.sequence_length = 7, .shuffle = false};
  EXPECT_EQ(error_of([&] {
              BatchStream(data, options, {2, 5});
            }),
            "the data has 4 rows in epoch 2, training had come to row 5: it was other data");
  const auto read = [](const Json& json) {
    return error_of([&] { data_position(JsonObject(json, "state.json")); });
  };
  EXPECT_EQ(read({{"epoch", 1}}), "state.json: field 'row': missing");
  EXPECT_EQ(read({{"epoch", -1}, {"row", 0}}), "state.json: field 'epoch': is negative");
  EXPECT_EQ(error_of([&] { BatchStream(data, {.rows = 0}); }),
            "batch-size: 0 given, expected 1 or more");
  EXPECT_EQ(error_of([&] { BatchStream(data, {.rank = 2, .ranks = 2}); }), "rank 2 of 2 cannot be");
}

}  // namespace
}  // namespace lapidary
