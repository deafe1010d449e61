#include "isolate/example.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>

#include "base/fail.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "isolate/json_parts.h"

namespace lapidary {

namespace {

using Fields = std::initializer_list<std::string_view>;

// A field that was misspelt would be ignored in silence.
void check_fields(const JsonObject& object, Fields known) {
  for (const auto& [key, value] : object.json().items())
    if (std::ranges::find(known, key) == known.end())
      fail("{}: unknown field '{}'", object.where(), key);
}

// None where there is no array.
std::vector<JsonObject> objects_if_any(const JsonObject& parent, std::string_view key) {
  return parent.has(key) ? objects(parent, key) : std::vector<JsonObject>();
}

std::vector<std::string> strings(const JsonObject& parent, std::string_view key) {
  std::vector<std::string> list;
  if (!parent.has(key)) return list;
  const Json& array = parent.raw(key);
  const bool good = array.is_array() && std::ranges::all_of(array, [](const Json& value) {
                      return value.is_string() && !value.get_ref<const std::string&>().empty();
                    });
  if (!good) parent.fail_field(key, "expected an array of texts, found " + shown_json(array));
  for (const Json& value : array) list.push_back(value.get<std::string>());
  return list;
}

void check_id(const JsonObject& parent, const std::string& id) {
  const bool good = !id.empty() && id.size() <= 128 && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  if (!good) parent.fail_field("id", "expected letters, digits, _ and -, found \"" + id + "\"");
}

IsolationTurn parse_turn(const JsonObject& turn) {
  check_fields(turn, {"turn_id", "cluster", "role", "type", "instruction", "content", "query"});
  IsolationTurn parsed{.id = turn.integer("turn_id")};
  for (const char* field : {"instruction", "content", "query"}) {
    std::string text = turn.string(field, "");
    if (!text.empty()) parsed.texts[field] = std::move(text);
  }
  return parsed;
}

IsolationCluster parse_cluster(const JsonObject& cluster, std::string name) {
  check_fields(cluster,
               {"task_type", "focus_area", "turns", "terminology", "expected_output", "questions"});
  IsolationCluster parsed{.name = std::move(name),
                          .task_type = cluster.string("task_type", ""),
                          .focus_area = cluster.string("focus_area", ""),
                          .terminology = strings(cluster, "terminology"),
                          .expected_output = cluster.string("expected_output", "")};
  std::set<std::string> ids;
  for (const JsonObject& question : objects_if_any(cluster, "questions")) {
    check_fields(question, {"id", "prompt", "expected_output"});
    parsed.questions.push_back({.id = question.string("id"),
                                .prompt = question.string("prompt"),
                                .expected_output = question.string("expected_output", "")});
    const IsolationQuestion& q = parsed.questions.back();
    check_id(question, q.id);
    if (q.prompt.empty()) question.fail_field("prompt", "is empty");
    if (!ids.insert(q.id).second) question.fail_field("id", "'" + q.id + "' comes twice");
  }
  return parsed;
}

// The number of "cluster_7".
std::optional<int64_t> cluster_number(const std::string& name) {
  constexpr std::string_view kPrefix = "cluster_";
  constexpr size_t kDigits = 6;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.empty() || digits.size() > kDigits || digits[0] == '0' ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::stoll(digits);
}

class Parser {
 public:
  explicit Parser(const JsonObject& root) : root_(root) {}

  IsolationExample parse() {
    check_fields(root_, {"id", "domain", "title", "description", "topics", "total_turns",
                         "semantic_clusters", "messages", "distractors", "ground_truth", "turns"});
    example_.id = root_.string("id");
    check_id(root_, example_.id);
    example_.domain = root_.string("domain");
    example_.title = root_.string("title", "");
    example_.topics = root_.string("topics", "");
    clusters();
    turns();
    memberships();
    messages();
    distractors();
    return std::move(example_);
  }

 private:
  // std::map orders names as text: cluster_10 must come after cluster_9.
  void clusters() {
    const JsonObject list = root_.object("semantic_clusters");
    std::map<int64_t, std::string> names;
    for (const auto& [name, value] : list.json().items()) {
      const auto number = cluster_number(name);
      if (!number) fail("{}: '{}' is no name of a cluster, expected cluster_1", list.where(), name);
      names[*number] = name;
    }
    if (names.empty()) root_.fail_field("semantic_clusters", "has no cluster");
    for (const auto& [number, name] : names) {
      numbers_[number] = example_.clusters.size();
      example_.clusters.push_back(parse_cluster(list.object(name), name));
    }
  }

  void turns() {
    for (const JsonObject& turn : objects(root_, "turns")) {
      IsolationTurn parsed = parse_turn(turn);
      const auto found = numbers_.find(turn.integer("cluster"));
      if (found == numbers_.end())
        turn.fail_field("cluster", fmt::format("there is no cluster_{}", turn.integer("cluster")));
      parsed.cluster = found->second;
      if (!turn_index_.emplace(parsed.id, example_.turns.size()).second)
        turn.fail_field("turn_id", fmt::format("{} comes twice", parsed.id));
      example_.turns.push_back(std::move(parsed));
    }
    if (example_.turns.empty()) root_.fail_field("turns", "has no turn");
    const auto count = static_cast<int64_t>(example_.turns.size());
    if (root_.integer("total_turns", count) != count)
      root_.fail_field("total_turns", fmt::format("is {}, there are {} turns",
                                                  root_.integer("total_turns"), count));
  }

  // A cluster's own list and what each turn says must be the same.
  void memberships() {
    const JsonObject list = root_.object("semantic_clusters");
    std::map<int64_t, std::string> claimed;  // by turn id
    for (IsolationCluster& cluster : example_.clusters) {
      const JsonObject object = list.object(cluster.name);
      const Json& ids = object.raw("turns");
      if (!ids.is_array() || ids.empty()) object.fail_field("turns", "expected a list of turn ids");
      for (const Json& id : ids) {
        if (!id.is_number_integer() || !turn_index_.contains(id.get<int64_t>()))
          object.fail_field("turns", "there is no turn " + shown_json(id));
        const auto [before, added] = claimed.emplace(id.get<int64_t>(), cluster.name);
        if (!added)
          object.fail_field("turns",
                            fmt::format("turn {} is in {} too", before->first, before->second));
      }
    }
    for (size_t i = 0; i < example_.turns.size(); ++i) {
      const IsolationTurn& turn = example_.turns[i];
      IsolationCluster& cluster = example_.clusters[turn.cluster];
      const auto claim = claimed.find(turn.id);
      if (claim == claimed.end() || claim->second != cluster.name)
        fail("{}: turn {} says it is of {}, but is {}", root_.where(), turn.id, cluster.name,
             claim == claimed.end() ? "in no cluster's list" : "in the list of " + claim->second);
      cluster.turns.push_back(i);
    }
  }

  size_t index_of(const JsonObject& object, std::string_view key, const std::string& name) {
    const auto found = std::ranges::find(example_.clusters, name, &IsolationCluster::name);
    if (found == example_.clusters.end())
      object.fail_field(key, "there is no cluster '" + name + "'");
    return static_cast<size_t>(found - example_.clusters.begin());
  }

  // They are for readers; what they name must be there.
  void distractors() {
    for (const JsonObject& distractor : objects_if_any(root_, "distractors")) {
      check_fields(distractor, {"clusters", "note"});
      distractor.string("note");
      const std::vector<std::string> names = strings(distractor, "clusters");
      if (names.size() < 2) distractor.fail_field("clusters", "expected two or more");
      for (const std::string& name : names) index_of(distractor, "clusters", name);
    }
  }

  // Without any: every other cluster's output goes to the synthesis clusters.
  void messages() {
    std::set<std::pair<size_t, size_t>> sent;  // to, from
    for (const JsonObject& message : objects_if_any(root_, "messages")) {
      check_fields(message, {"from", "to"});
      const auto end = [&](std::string_view key) {
        return index_of(message, key, message.string(key));
      };
      sent.emplace(end("to"), end("from"));
    }
    std::vector<IsolationCluster>& clusters = example_.clusters;
    if (!root_.has("messages"))
      for (size_t to = 0; to < clusters.size(); ++to)
        for (size_t from = 0; from < clusters.size(); ++from)
          if (clusters[to].synthesis() && !clusters[from].synthesis()) sent.emplace(to, from);
    for (const auto& [to, from] : sent) clusters[to].hears.push_back(from);
    if (example_.cluster_order().size() < clusters.size())
      root_.fail_field("messages", "go in a circle");
  }

  const JsonObject& root_;
  IsolationExample example_;
  std::map<int64_t, size_t> numbers_;     // of clusters
  std::map<int64_t, size_t> turn_index_;  // of ids
};

}  // namespace

std::vector<size_t> IsolationExample::cluster_order() const {
  std::vector<size_t> order;
  std::vector<bool> done(clusters.size());
  for (size_t before = clusters.size() + 1; before != order.size();) {
    before = order.size();
    for (size_t i = 0; i < clusters.size(); ++i) {
      if (done[i] || !std::ranges::all_of(clusters[i].hears, [&](size_t j) { return done[j]; }))
        continue;
      done[i] = true;
      order.push_back(i);
    }
  }
  return order;
}

IsolationExample parse_example(std::string_view json, const std::string& name) {
  const Json document = parse_json(json, name);
  const JsonObject root(document, name);
  IsolationExample example = Parser(root).parse();
  example.json = json;
  return example;
}

IsolationExample read_example(const std::filesystem::path& file) {
  const MappedFile bytes = MappedFile::open(file);
  const auto text = bytes.bytes();
  return parse_example({reinterpret_cast<const char*>(text.data()), text.size()}, file.string());
}

std::vector<std::filesystem::path> example_files(std::span<const std::filesystem::path> places) {
  std::vector<std::filesystem::path> files;
  for (const std::filesystem::path& place : places) {
    if (!std::filesystem::is_directory(place)) {
      files.push_back(place);
      continue;
    }
    const size_t before = files.size();
    for (const auto& entry : std::filesystem::directory_iterator(place))
      if (entry.path().extension() == ".json" && entry.path().filename() != "schema.json")
        files.push_back(entry.path());
    if (files.size() == before) fail("{}: has no example, expected *.json", place.string());
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
  }
  return files;
}

void ExampleIds::add(const IsolationExample& example, const std::filesystem::path& file) {
  const auto [first, added] = files_.emplace(example.id, file.string());
  if (!added) fail("{}: the id '{}' is that of {} too", file.string(), first->first, first->second);
}

std::vector<IsolationExample> read_examples(std::span<const std::filesystem::path> places) {
  std::vector<IsolationExample> examples;
  ExampleIds ids;
  for (const std::filesystem::path& file : example_files(places)) {
    examples.push_back(read_example(file));
    ids.add(examples.back(), file);
  }
  return examples;
}

}  // namespace lapidary
