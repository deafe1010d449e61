#include "isolate/description.h"

#include <fmt/format.h>

#include "lapidary/generate.h"

#include "base/json.h"
#include "base/text_hash.h"
#include "isolate/plan_json.h"

namespace lapidary {

namespace {

std::string hex(uint64_t number) {
  return fmt::format("{:016x}", number);
}

std::string hash_of(std::string_view text) {
  return hex(hash_text(text.size(), text));
}

// "given", or how they were found.
OrderedJson clusters_of(const IsolationRunOptions& o) {
  if (!o.found) return "given";
  const FindOptions& by = o.found->by;
  return {{"method", by.method == ClusterMethod::kKMeans ? "kmeans" : "agglomerative"},
          {"layer", o.found->layer},
          {"number", by.clusters > 0 ? OrderedJson(by.clusters) : OrderedJson("by silhouette")}};
}

// Models of the same weights may differ in it: what a token stands for decides what is read.
uint64_t pieces_hash(const Tokenizer& tokenizer) {
  uint64_t hash = static_cast<uint64_t>(tokenizer.size());
  for (Token id = 0; id < tokenizer.size(); ++id) hash = hash_text(hash, tokenizer.piece(id));
  return hash;
}

}  // namespace

OrderedJson run_description(const Engine& engine, std::span<const IsolationExample> examples,
                            std::span<const IsolationPlan> plans, const IsolationRunOptions& o,
                            const TextEmbedder* embedder) {
  OrderedJson hashes = OrderedJson::object(), conditions = OrderedJson::array();
  for (size_t i = 0; i < examples.size(); ++i)
    hashes[examples[i].id] = hash_of(examples[i].json + stored_plan(plans[i]).dump());
  for (const Condition condition : o.plan.conditions) conditions.push_back(name_of(condition));
  OrderedJson similarity_model, similarity_fingerprint;  // null: the model's own hidden states
  if (embedder != nullptr) {
    similarity_model = embedder->engine().folder().filename().string();
    similarity_fingerprint = hex(embedder->fingerprint());
  }
  return {{"format", 1},
          {"model", engine.folder().filename().string()},
          {"model_fingerprint", hex(engine.fingerprint())},
          {"tokenizer_fingerprint", hex(pieces_hash(engine.tokenizer()))},
          {"end_tokens", o.ignore_eos ? std::vector<Token>() : end_tokens(engine)},
          {"adapters", o.adapters},
          {"compute", engine.compute() == Compute::kExact ? "exact" : "fast"},
          {"kv_type", std::string(name_of(engine.kv_type()))},
          {"similarity_model", similarity_model},
          {"similarity_fingerprint", similarity_fingerprint},
          {"examples", hashes},
          {"conditions", conditions},
          {"clusters", clusters_of(o)},
          {"text_fields", o.plan.text_fields},
          {"topics", o.plan.topics},
          {"prompts", o.plan.topical ? "topical" : "neutral"},
          {"questions", o.plan.questions},
          {"chat", o.plan.chat},
          {"max_tokens", o.plan.max_tokens},
          {"seed", o.plan.seed},
          {"temperature", o.sampling.temperature},
          {"top_k", o.sampling.top_k},
          {"top_p", o.sampling.top_p},
          {"ignore_eos", o.ignore_eos},
          {"procedure", o.one_at_a_time ? "original" : "batched"}};
}

}  // namespace lapidary
