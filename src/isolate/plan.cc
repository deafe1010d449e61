#include "isolate/plan.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/text_hash.h"

namespace lapidary {

namespace {

constexpr const char* kTopics = "technical performance analysis and business strategy";

// The order of the enumeration.
constexpr std::array<std::string_view, kConditions.size()> kNames = {
    "sequential",      "prompted",       "turn_based",   "semantic",
    "random_clusters", "length_matched", "message_only", "mask"};

bool has_cache_per_cluster(Condition condition) {
  return condition == Condition::kSemantic || condition == Condition::kRandomClusters ||
         condition == Condition::kMask;
}

bool sends_messages(Condition condition) {
  return has_cache_per_cluster(condition) || condition == Condition::kMessageOnly;
}

// "A" to "Z", then "A2": clusters are few.
std::string letter(size_t cluster) {
  std::string name(1, static_cast<char>('A' + cluster % 26));
  return cluster < 26 ? name : name + std::to_string(cluster / 26 + 1);
}

// "A", "A and B", "A, B and C"
std::string listed(const std::vector<std::string>& words) {
  if (words.size() < 2) return fmt::format("{}", fmt::join(words, ""));
  const auto last = words.end() - 1;
  return fmt::format("{} and {}", fmt::join(words.begin(), last, ", "), *last);
}

std::string first_words(std::string_view text, double share) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
  std::vector<size_t> ends;  // of words
  for (size_t i = 1; i <= text.size(); ++i)
    if (!blank(text[i - 1]) && (i == text.size() || blank(text[i]))) ends.push_back(i);
  const auto keep = static_cast<size_t>(share * static_cast<double>(ends.size()));
  return keep == 0 ? "" : std::string(text.substr(0, ends[std::min(keep, ends.size()) - 1]));
}

class Planner {
 public:
  Planner(const IsolationExample& example, const PlanOptions& options, const Tokenizer& tokenizer,
          std::span<const int> found)
      : example_(example), o_(options), tokenizer_(tokenizer), found_(found) {}

  IsolationPlan plan() {
    IsolationPlan plan{.example = example_.id};
    texts_ = texts_of_turns(example_, o_, plan.warnings);
    for (const Condition condition : o_.conditions) plan.conditions.push_back(make(condition));
    return plan;
  }

 private:
  PlannedCondition make(Condition condition) {
    PlannedCondition made{.condition = condition};
    const Groups groups = groups_of(condition);
    for (size_t i = 0; i < groups.names.size(); ++i)
      made.caches.push_back({groups.names[i], has_cache_per_cluster(condition)
                                                  ? pieces(groups.turns[i])
                                                  : all_pieces(condition)});
    outputs(made, groups);
    if (sends_messages(condition)) messages(made, groups);
    return made;
  }

  // The caches of a condition, their turns, and which of them a cluster's outputs go on from.
  struct Groups {
    std::vector<std::string> names;
    std::vector<std::vector<size_t>> turns;
    std::vector<size_t> of_cluster;
  };

  Groups groups_of(Condition condition) const {
    Groups groups;
    if (!has_cache_per_cluster(condition))
      return {{"all"}, {}, std::vector<size_t>(example_.clusters.size(), 0)};
    if (condition != Condition::kRandomClusters && !found_.empty()) return found_groups();
    groups.turns = condition == Condition::kRandomClusters ? dealt_turns() : own_turns();
    for (size_t i = 0; i < example_.clusters.size(); ++i) {
      groups.names.push_back(example_.clusters[i].name);
      groups.of_cluster.push_back(i);
    }
    return groups;
  }

  Groups found_groups() const {
    Groups groups;
    const auto count = static_cast<size_t>(*std::ranges::max_element(found_) + 1);
    groups.turns.resize(count);
    for (size_t i = 0; i < count; ++i) groups.names.push_back(fmt::format("found_{}", i + 1));
    for (size_t turn = 0; turn < found_.size(); ++turn)
      if (found_[turn] >= 0) groups.turns[static_cast<size_t>(found_[turn])].push_back(turn);
    for (const IsolationCluster& cluster : example_.clusters) {
      if (cluster.synthesis()) {
        groups.of_cluster.push_back(groups.names.size());
        groups.names.push_back(cluster.name);
        groups.turns.push_back(cluster.turns);
        continue;
      }
      std::vector<int64_t> votes(count);
      for (const size_t turn : cluster.turns)
        if (found_[turn] >= 0) ++votes[static_cast<size_t>(found_[turn])];
      const auto most = std::ranges::max_element(votes);
      groups.of_cluster.push_back(static_cast<size_t>(most - votes.begin()));
    }
    return groups;
  }

  std::vector<std::vector<size_t>> own_turns() const {
    std::vector<std::vector<size_t>> turns;
    for (const IsolationCluster& cluster : example_.clusters) turns.push_back(cluster.turns);
    return turns;
  }

  // As many for each cluster as it has; those of synthesis clusters stay where they are.
  std::vector<std::vector<size_t>> dealt_turns() const {
    std::vector<size_t> deck;
    for (const IsolationCluster& cluster : example_.clusters)
      if (!cluster.synthesis()) deck.insert(deck.end(), cluster.turns.begin(), cluster.turns.end());
    const uint64_t name = hash_text(0, example_.id);
    for (size_t i = deck.size(); i > 1; --i)
      std::swap(deck[i - 1], deck[mix64(mix64(o_.seed) ^ name ^ i) % i]);
    std::vector<std::vector<size_t>> turns = own_turns();
    for (size_t i = 0, next = 0; i < turns.size(); ++i) {
      if (example_.clusters[i].synthesis()) continue;
      for (size_t& turn : turns[i]) turn = deck[next++];
      std::ranges::sort(turns[i]);
    }
    return turns;
  }

  std::vector<ContextPiece> pieces(std::span<const size_t> turns) const {
    std::vector<ContextPiece> list;
    for (const size_t turn : turns)
      if (!texts_[turn].empty()) list.push_back({texts_[turn], turn});
    return list;
  }

  std::vector<ContextPiece> all_pieces(Condition condition) const {
    std::vector<ContextPiece> list;
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (condition == Condition::kTurnBased)
        list.push_back({fmt::format("[Turn {}]\n{}", example_.turns[i].id, texts_[i]), i});
      else if (!texts_[i].empty())
        list.push_back({texts_[i], i});
    }
    if (condition == Condition::kPrompted)
      list.front().text = "IMPORTANT: Keep the following topics separate: " + topics() + ".\n\n" +
                          list.front().text;
    if (condition == Condition::kLengthMatched) cut(list);
    return list;
  }

  std::string topics() const {
    if (!o_.topics.empty()) return o_.topics;
    return example_.topics.empty() ? kTopics : example_.topics;
  }

  int64_t length(const std::vector<ContextPiece>& list) const {
    const PlannedCondition alone{.caches = {{"", list}}};
    return count_tokens(tokenizer_, alone, alone.caches[0], o_.chat);
  }

  // Keeps the first words of every turn, the same share of each, so that all is as long as the
  // working clusters' own contexts are on average, or a few tokens less.
  void cut(std::vector<ContextPiece>& list) const {
    int64_t sum = 0, working = 0;
    for (const IsolationCluster& cluster : example_.clusters) {
      if (cluster.synthesis()) continue;
      sum += length(pieces(cluster.turns));
      ++working;
    }
    if (working == 0) return;
    constexpr int kHalvings = 12;
    double low = 0, high = 1;
    const auto shortened = [&](double share) {
      std::vector<ContextPiece> shorter;
      for (const ContextPiece& piece : list)
        if (std::string words = first_words(piece.text, share); !words.empty())
          shorter.push_back({std::move(words), piece.turn});
      return shorter;
    };
    for (int i = 0; i < kHalvings; ++i) {
      const double share = (low + high) / 2;
      (length(shortened(share)) <= sum / working ? low : high) = share;
    }
    list = shortened(low);
  }

  void outputs(PlannedCondition& made, const Groups& groups) const {
    for (size_t i = 0; i < example_.clusters.size(); ++i) {
      const IsolationCluster& cluster = example_.clusters[i];
      made.outputs.push_back({.name = letter(i),
                              .cluster = i,
                              .cache = groups.of_cluster[i],
                              .prompt = std::string(kBlankLine) + request(i),
                              .expected = cluster.expected_output});
    }
    for (size_t i = 0; o_.questions && i < example_.clusters.size(); ++i)
      for (const IsolationQuestion& question : example_.clusters[i].questions)
        made.outputs.push_back({.name = letter(i) + "." + question.id,
                                .cluster = i,
                                .cache = groups.of_cluster[i],
                                .prompt = std::string(kBlankLine) + question.prompt + "\nAnswer:",
                                .expected = question.expected_output,
                                .question = true});
  }

  // What a cluster is asked for.
  std::string request(size_t i) const {
    const IsolationCluster& cluster = example_.clusters[i];
    std::vector<std::string> heard;
    for (const size_t from : cluster.hears)
      heard.push_back(o_.topical ? focus(from) : letter(from));
    const bool integrates = cluster.synthesis() && !heard.empty();
    if (o_.topical)
      return integrates ? fmt::format("Generate a report on {} that integrates the reports on {}:",
                                      focus(i), listed(heard))
                        : fmt::format("Generate a report on {}:", focus(i));
    return integrates ? fmt::format("Generate output {} that integrates output{} {}:", letter(i),
                                    heard.size() > 1 ? "s" : "", listed(heard))
                      : fmt::format("Generate output {} based on the provided context:", letter(i));
  }

  std::string focus(size_t i) const {
    const IsolationCluster& cluster = example_.clusters[i];
    if (!cluster.focus_area.empty()) return cluster.focus_area;
    std::string task = cluster.task_type.empty() ? cluster.name : cluster.task_type;
    std::ranges::replace(task, '_', ' ');
    return task;
  }

  // The outputs of clusters that hear others, but share their cache, get a copy of it that begins
  // with what they hear.
  void messages(PlannedCondition& made, const Groups& groups) const {
    for (size_t i = 0; i < example_.clusters.size(); ++i) {
      const std::vector<size_t>& hears = example_.clusters[i].hears;
      if (hears.empty()) continue;
      size_t cache = groups.of_cluster[i];
      if (std::ranges::count(groups.of_cluster, cache) > 1) {
        const std::string name = made.caches[cache].name + "_" + example_.clusters[i].name;
        made.caches.push_back({name, made.caches[cache].pieces});
        cache = made.caches.size() - 1;
        for (PlannedOutput& output : made.outputs)
          if (output.cluster == i) output.cache = cache;
      }
      made.caches[cache].messages = hears;  // the first outputs are the clusters', in their order
    }
  }

  const IsolationExample& example_;
  const PlanOptions& o_;
  const Tokenizer& tokenizer_;
  std::span<const int> found_;
  std::vector<std::string> texts_;  // of the turns; empty: skipped
};

}  // namespace

std::string_view name_of(Condition condition) {
  return kNames[static_cast<size_t>(condition)];
}

Condition condition_named(std::string_view name) {
  for (const Condition condition : kConditions)
    if (name_of(condition) == name) return condition;
  fail_usage("condition '{}' does not exist, expected {}", name, fmt::join(kNames, ", "));
}

std::optional<std::string> turn_text(const IsolationTurn& turn, const PlanOptions& options) {
  for (const std::string& field : options.text_fields)
    if (const auto found = turn.texts.find(field); found != turn.texts.end()) return found->second;
  return std::nullopt;
}

std::vector<std::string> texts_of_turns(const IsolationExample& example, const PlanOptions& options,
                                        std::vector<std::string>& warnings) {
  std::vector<std::string> texts;
  for (const IsolationTurn& turn : example.turns) {
    texts.push_back(turn_text(turn, options).value_or(""));
    if (!texts.back().empty()) continue;
    std::vector<std::string> has;
    for (const auto& [field, text] : turn.texts) has.push_back(field);
    warnings.push_back(fmt::format("{}: turn {} has no {}, only {}: skipped", example.id, turn.id,
                                   fmt::join(options.text_fields, " or "),
                                   has.empty() ? "nothing" : listed(has)));
  }
  for (const IsolationCluster& cluster : example.clusters)
    if (std::ranges::all_of(cluster.turns, [&](size_t i) { return texts[i].empty(); }))
      fail("{}: {} has no turn with text", example.id, cluster.name);
  return texts;
}

IsolationPlan make_plan(const IsolationExample& example, const PlanOptions& options,
                        const Tokenizer& tokenizer, std::span<const int> found) {
  return Planner(example, options, tokenizer, found).plan();
}

std::string context_text(const PlannedCondition& condition, const PlannedCache& cache,
                         const std::function<std::string_view(size_t output)>& outputs) {
  std::string text;
  if (!cache.messages.empty()) text = "\n";
  for (const size_t i : cache.messages)
    text += fmt::format("Output {}: {}\n\n", condition.outputs[i].name, outputs(i));
  for (size_t i = 0; i < cache.pieces.size(); ++i)
    text.append(i == 0 ? "" : kBlankLine).append(cache.pieces[i].text);
  return text;
}

std::vector<Token> context_tokens(const Tokenizer& tokenizer, std::string_view text, bool chat) {
  std::vector<Token> ids = {tokenizer.bos()};
  const auto add = [&](const std::vector<Token>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  };
  if (chat) add(tokenizer.encode("<start_of_turn>user\n"));
  add(tokenizer.encode(text, ControlText::kLiteral));
  return ids;
}

std::vector<Token> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt, bool chat) {
  std::vector<Token> ids = tokenizer.encode(prompt, ControlText::kLiteral);
  if (!chat) return ids;
  for (const Token id : tokenizer.encode("<end_of_turn>\n<start_of_turn>model\n"))
    ids.push_back(id);
  return ids;
}

int64_t count_tokens(const Tokenizer& tokenizer, const PlannedCondition& condition,
                     const PlannedCache& cache, bool chat, int64_t messages) {
  const std::string text = context_text(condition, cache, [](size_t) { return ""; });
  return std::ssize(context_tokens(tokenizer, text, chat)) + messages * std::ssize(cache.messages);
}

std::vector<Misfit> misfits(const IsolationPlan& plan, const PlanOptions& options,
                            const Tokenizer& tokenizer, int64_t context) {
  std::vector<Misfit> list;
  for (const PlannedCondition& condition : plan.conditions) {
    std::vector<int64_t> lengths;
    for (const PlannedCache& cache : condition.caches)
      lengths.push_back(
          count_tokens(tokenizer, condition, cache, options.chat, options.max_tokens));
    for (const PlannedOutput& output : condition.outputs) {
      const int64_t needed = lengths[output.cache] + options.max_tokens +
                             std::ssize(prompt_tokens(tokenizer, output.prompt, options.chat));
      if (needed > context) list.push_back({condition.condition, output.name, needed});
    }
  }
  return list;
}

void check_plan(const IsolationPlan& plan, const PlanOptions& options, const Tokenizer& tokenizer,
                int64_t context) {
  const std::vector<Misfit> list = misfits(plan, options, tokenizer, context);
  if (list.empty()) return;
  const Misfit& first = list.front();
  throw Error(
      ErrorKind::kInput,
      fmt::format("{}: {}, output {}: context, prompt and answer need {} positions, {} more "
                  "than the {} there are",
                  plan.example, name_of(first.condition), first.output, first.needed,
                  first.needed - context, context),
      "ask for fewer tokens with -n, or take a model with a longer context");
}

}  // namespace lapidary
