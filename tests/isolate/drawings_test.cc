#include "isolate/drawings.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/scratch_folder.h"
#include "small_example.h"

namespace lapidary {
namespace {

// What stands between two texts, the first of them included.
std::string between(const std::string& html, const std::string& begin, const std::string& end) {
  const size_t at = html.find(begin);
  return at == std::string::npos ? "" : html.substr(at, html.find(end, at + 1) - at);
}

std::vector<std::string> titles(const std::string& html) {
  std::vector<std::string> list;
  const std::string mark = "title=\"";
  for (size_t at = 0; (at = html.find(mark, at)) != std::string::npos;) {
    at += mark.size();
    list.push_back(html.substr(at, html.find('"', at) - at));
  }
  return list;
}

TEST(CacheMap, ShowsWhatLiesWhere) {
  const Tokenizer tokenizer = Tokenizer::load(kTiny);
  const IsolationExample example = small_example();
  const IsolationPlan plan =
      make_plan(example, {.conditions = {Condition::kPrompted, Condition::kMask}}, tokenizer);
  const ScratchFolder scratch;
  IsolationFolder folder(scratch.path() / "run", {{"format", 1}});
  for (const PlannedCondition& condition : plan.conditions)
    for (const PlannedCache& cache : condition.caches)
      folder.add(ContextRecord{.example = example.id,
                               .condition = std::string(name_of(condition.condition)),
                               .name = cache.name,
                               .tokens = 40});
  folder.add(OutputRecord{.example = example.id,
                          .condition = "mask",
                          .name = "A",
                          .tokens = {9},
                          .text = "Two masts."});
  const std::string html = cache_map(example, plan, folder);
  const std::string prompted = between(html, ">prompted<", ">mask<"),
                    mask = between(html, ">mask<", "$");
  // The instruction is of no cluster.
  EXPECT_EQ(titles(prompted),
            (std::vector<std::string>{"instruction to keep the topics apart", "turn 1, cluster_1",
                                      "turn 2, cluster_2", "turn 3, cluster_1", "turn 4, cluster_2",
                                      "turn 5, cluster_3"}));
  // One cache, in the order of the conversation, and then what waits for messages.
  EXPECT_EQ(titles(mask),
            (std::vector<std::string>{"turn 1, cluster_1", "turn 2, cluster_2", "turn 3, cluster_1",
                                      "turn 4, cluster_2", "output of cluster_1",
                                      "output of cluster_2", "turn 5, cluster_3"}));
  EXPECT_EQ(std::ranges::count(titles(html), "turn 1, cluster_1"), 2);
  EXPECT_NE(mask.find("<div>one cache</div><div class=\"bar\" style=\"width:100.00%\">"),
            std::string::npos);
}

}  // namespace
}  // namespace lapidary
