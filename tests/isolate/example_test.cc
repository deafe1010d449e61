#include "isolate/example.h"

#include <filesystem>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "small_example.h"

namespace lapidary {
namespace {

// kSmallExample with one passage replaced.
std::string changed(const std::string& from, const std::string& to) {
  std::string text = kSmallExample;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string error_of(const std::string& json) {
  try {
    parse_example(json, "small.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(IsolationExample, IsReadAsItIsWritten) {
  const IsolationExample example = small_example();
  EXPECT_EQ(example.id, "small");
  EXPECT_EQ(example.topics, "ships and bread");
  ASSERT_EQ(example.clusters.size(), 3u);
  EXPECT_EQ(example.clusters[0].turns, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(example.clusters[0].questions[0].expected_output, "Two.");
  EXPECT_TRUE(example.clusters[2].synthesis());
  // Without messages, the synthesis hears the others.
  EXPECT_EQ(example.clusters[2].hears, (std::vector<size_t>{0, 1}));
  EXPECT_TRUE(example.clusters[1].hears.empty());
  EXPECT_EQ(example.turns[1].texts.size(), 2u);
  EXPECT_EQ(example.json, kSmallExample);
}

TEST(IsolationExample, MessagesMakeAnOrder) {
  const IsolationExample example =
      parse_example(changed("\"turns\": [\n",
                            "\"messages\": [{\"from\": \"cluster_3\", \"to\": \"cluster_2\"},"
                            "{\"from\": \"cluster_2\", \"to\": \"cluster_1\"}], \"turns\": [\n"),
                    "chain");
  EXPECT_EQ(example.cluster_order(), (std::vector<size_t>{2, 1, 0}));
}

TEST(IsolationExample, SaysWhatIsWrong) {
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"turn_id\": 3,", "\"turn_id\": 2,",
       "small.json: turns[2]: field 'turn_id': 2 comes twice"},
      {"[1, 3]", "[1, 3, 4]", "turn 4 is in cluster_1 too"},
      {"[1, 3]", "[1]", "turn 3 says it is of cluster_1, but is in no cluster's list"},
      {"[2, 4]", "[2, 4, 9]", "there is no turn 9"},
      {"[2, 4]", "[]", "field 'turns': expected a list of turn ids"},
      {"\"turn_id\": 3, \"cluster\": 1", "\"turn_id\": 3, \"cluster\": 7", "there is no cluster_7"},
      {"\"turn_id\": 3, \"cluster\": 1", "\"turn_id\": 3, \"cluster\": 2",
       "turn 3 says it is of cluster_2, but is in the list of cluster_1"},
      {"\"domain\"", "\"domian\"", "unknown field 'domian'"},
      {"\"focus_area\"", "\"focus\"", "cluster_1: unknown field 'focus'"},
      {"\"content\": \"It", "\"contents\": \"It", "turns[2]: unknown field 'contents'"},
      {"\"total_turns\": 6", "\"total_turns\": 7", "'total_turns': is 7, there are 6 turns"},
      {"\"id\": \"small\"", "\"id\": \"../x\"", "'id': expected letters"},
      {"\"cluster_2\": {", "\"cluster_x\": {", "'cluster_x' is no name of a cluster"},
      {"[\"mast\"]", "[\"mast\", 1]", "'terminology': expected an array of texts"},
      {"\"turns\": [\n",
       "\"messages\": [{\"from\": \"cluster_9\", \"to\": \"cluster_1\"}], \"turns\": [\n",
       "there is no cluster 'cluster_9'"},
      {"\"turns\": [\n",
       "\"messages\": [{\"from\": \"cluster_1\", \"to\": \"cluster_2\"},"
       "{\"from\": \"cluster_2\", \"to\": \"cluster_1\"}], \"turns\": [\n",
       "'messages': go in a circle"},
      {"\"How many masts?\"", "\"\"", "'prompt': is empty"},
      {"\"turns\": [\n",
       "\"distractors\": [{\"clusters\": [\"cluster_1\", \"cluster_9\"], \"note\": \"x\"}],"
       "\"turns\": [\n",
       "distractors[0]: field 'clusters': there is no cluster 'cluster_9'"},
      {"\"turns\": [\n",
       "\"distractors\": [{\"clusters\": [\"cluster_1\"], \"note\": \"x\"}], \"turns\": [\n",
       "'clusters': expected two or more"},
      {"\"turns\": [\n", "\"distractors\": [{\"clusters\": [], \"text\": \"x\"}], \"turns\": [\n",
       "distractors[0]: unknown field 'text'"},
  };
  for (const auto& c : cases)
    EXPECT_NE(error_of(changed(c.from, c.to)).find(c.message), std::string::npos)
        << c.message << "\nfound: " << error_of(changed(c.from, c.to));
}

// Those that come with lapidary: what the laboratory promises of them.
TEST(IsolationExamples, OfTheRepository) {
  const std::filesystem::path folder[] = {std::filesystem::path(LAPIDARY_SOURCE_DIR) /
                                          "data/isolation"};
  const std::vector<IsolationExample> examples = read_examples(folder);
  EXPECT_GE(examples.size(), 36u);
  std::set<std::string> domains;
  for (const IsolationExample& example : examples) {
    domains.insert(example.domain);
    EXPECT_TRUE(example.clusters.back().synthesis()) << example.id;
    const size_t working = example.clusters.size() - 1;
    EXPECT_TRUE(working >= 2 && working <= 4) << example.id;
    EXPECT_FALSE(example.topics.empty()) << example.id;
    for (size_t i = 0; i < working; ++i) {
      const IsolationCluster& cluster = example.clusters[i];
      EXPECT_GE(cluster.turns.size(), 2u) << example.id;
      EXPECT_GE(cluster.questions.size(), 2u) << example.id;
      EXPECT_GE(cluster.terminology.size(), 8u) << example.id;
      for (const IsolationQuestion& q : cluster.questions)
        EXPECT_FALSE(q.expected_output.empty()) << example.id << " " << q.id;
    }
    for (const IsolationCluster& cluster : example.clusters)
      EXPECT_FALSE(cluster.expected_output.empty()) << example.id;
  }
  EXPECT_GE(domains.size(), 9u);
}

TEST(IsolationExamples, HaveIdsOfTheirOwn) {
  const std::filesystem::path file =
      std::filesystem::path(LAPIDARY_SOURCE_DIR) / "data/isolation/food_001_bakery.json";
  const std::filesystem::path twice[] = {file, file};
  EXPECT_THROW(read_examples(twice), Error);
}

}  // namespace
}  // namespace lapidary
