// lapidary isolate cluster: the topics of a conversation, found.
#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "isolate/find_clusters.h"
#include "isolate_options.h"

namespace lapidary::cli {

void add_finding(CLI::App& verb, FindFlags& flags, const char* group) {
  choices(verb.add_option("--method", flags.method, "How turns are put together (agglomerative)"),
          {"agglomerative", "kmeans"})
      ->group(group);
  verb.add_option("--layer", flags.layer,
                  "Whose hidden states are averaged; 0: two thirds of the way up (0)")
      ->type_name("N")
      ->check(between<int>(0, 1000))
      ->group(group);
  verb.add_option("--number", flags.number,
                  "Of clusters; 0: the number with the largest silhouette (0)")
      ->type_name("N")
      ->check(between<int>(0, 1000))
      ->group(group);
}

int layer_of(const FindFlags& flags, const Engine& engine) {
  const int layer = flags.layer.value_or(0);
  return layer > 0 ? layer : default_layer(engine);
}

void check_finding(const FindFlags& flags, const std::string& clusters) {
  if (clusters == "auto") return;
  for (const auto& [flag, given] : {std::pair("--method", flags.method.has_value()),
                                    std::pair("--layer", flags.layer.has_value()),
                                    std::pair("--number", flags.number.has_value())})
    if (given) fail_usage("{}: only with --clusters auto", flag);
}

FindOptions resolve(const FindFlags& flags, uint64_t seed) {
  FindOptions options;
  if (flags.method) options.method = cluster_method_named(*flags.method);
  options.clusters = flags.number.value_or(0);
  options.seed = seed;
  return options;
}

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  PlanFlags plan;
  FindFlags find;
  std::string embedding_model;
  std::optional<std::string> turn;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_examples(verb, o.plan);
  add_finding(verb, o.find, "Clusters");
  verb.add_option("--seed", o.plan.options.seed, "Of the starts of kmeans (42)")
      ->type_name("N")
      ->group("Clusters");
  verb.add_option("--route", o.turn, "A new turn: say which cluster it belongs to")
      ->type_name("TEXT");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  verb.add_option("--embedding-model", o.embedding_model,
                  "In place of -m: an EmbeddingGemma folder, or its name in the cache, whose "
                  "embeddings the turns become")
      ->type_name("MODEL")
      ->group("Model")
      ->excludes(verb.get_option("--layer"))
      ->excludes(verb.get_option("--adapter"));
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Each turn's hidden states are averaged, and turns that point the same way are put together. "
      "Agreement with the file's clusters: 1 is the same, 0 what chance gives (adjusted Rand "
      "index).\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate cluster data/isolation/food_001_bakery.json\n"
      "  lapidary isolate cluster data/isolation -m ~/models/gemma-3-1b-it --method kmeans --json\n"
      "  lapidary isolate cluster FILE --embedding-model google/embeddinggemma-300m");
}

Json to_json(const IsolationExample& example, const FoundClusters& found,
             const std::optional<Route>& routed, const Json& layer) {
  Json labels = Json::object();
  for (const size_t i : found.turns)
    labels[std::to_string(example.turns[i].id)] = found.labels[i] + 1;
  Json json = {{"example", example.id},
               {"layer", layer},
               {"clusters", found.clustering.clusters},
               {"labels", labels},
               {"silhouette", found.clustering.silhouette},
               {"silhouettes", found.clustering.by_number},
               {"adjusted_rand_index", found.rand_index},
               {"normalized_mutual_information", found.mutual_information}};
  if (routed)
    json["route"] = {
        {"cluster", routed->cluster + 1}, {"cosine", routed->cosine}, {"margin", routed->margin}};
  return json;
}

std::string to_text(const IsolationExample& example, const FoundClusters& found,
                    const std::optional<Route>& routed) {
  std::string text =
      fmt::format("{}: {} clusters, silhouette {:.3f}; with the file's: ARI {:.3f}, NMI {:.3f}\n",
                  example.id, found.clustering.clusters, found.clustering.silhouette,
                  found.rand_index, found.mutual_information);
  for (int k = 0; k < found.clustering.clusters; ++k) {
    std::string turns;
    for (const size_t i : found.turns)
      if (found.labels[i] == k)
        turns += fmt::format(" {} ({})", example.turns[i].id,
                             example.clusters[example.turns[i].cluster].name);
    text += fmt::format("  {}:{}\n", k + 1, turns);
  }
  if (routed)
    text += fmt::format("  the new turn belongs to {}: cosine {:.3f}, {:.3f} more than the next\n",
                        routed->cluster + 1, routed->cosine, routed->margin);
  return text;
}

int run(const Options& o) {
  apply(o.verbosity);
  const FindOptions find = resolve(o.find, o.plan.options.seed);
  const PlanOptions plan = resolve(o.plan);
  if (o.turn && o.turn->empty()) fail_usage("--route: the turn is empty");
  const std::vector<IsolationExample> examples = read_examples(o.plan);
  std::shared_ptr<const Engine> engine;
  std::optional<TextEmbedder> embedder;
  Embed embed;
  Json layer;  // null of an embedding model
  if (o.embedding_model.empty()) {
    engine = load_engine(o.model, o.verbosity);
    layer = layer_of(o.find, *engine);
    embed = embed_by_layer(*engine, layer.get<int>());
  } else {
    embedder = load_embedder(o.embedding_model, o.model, kClusteringTask);
    embed = [&](std::string_view text) { return embedder->embed(text); };
  }
  Json list = Json::array();
  for (const IsolationExample& example : examples) {
    const FoundClusters found = find_clusters(embed, example, plan, find);
    std::optional<Route> routed;
    if (o.turn) routed = route_turn(embed, found, *o.turn);
    if (o.json)
      list.push_back(to_json(example, found, routed, layer));
    else
      out(to_text(example, found, routed));
  }
  if (o.json) out_json(list.size() == 1 ? list[0] : Json{{"examples", list}});
  return kOk;
}

}  // namespace

void add_isolate_cluster(Program& program, CLI::App& isolate) {
  add_verb<Options>(program, "cluster", "Find the topics of a conversation", setup, run, &isolate);
}

}  // namespace lapidary::cli
