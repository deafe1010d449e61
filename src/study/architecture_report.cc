#include "study/architecture_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "kernels/kv_rows.h"
#include "report/html.h"
#include "study/assets.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

Json tensor_json(const TensorFigures& t) {
  return {{"name", t.name},
          {"shape", t.cols > 0 ? Json{t.rows, t.cols} : Json{t.rows}},
          {"format", t.format},
          {"parameters", t.parameters()},
          {"bytes", t.bytes}};
}

Json layer_json(const LayerArchitecture& l) {
  Json tensors = Json::array();
  for (const TensorFigures& t : l.tensors) tensors.push_back(tensor_json(t));
  return {{"layer", l.layer},
          {"sliding", l.sliding},
          {"window", l.window > 0 ? Json(l.window) : Json()},
          {"rope_theta", l.rope.theta},
          {"rope_factor", l.rope.factor},
          {"parameters", l.parameters()},
          {"bytes", l.bytes()},
          {"tensors", tensors}};
}

// 1, 4, 16, ... and what the model was made for.
std::vector<int64_t> some_contexts(const Config& c) {
  std::vector<int64_t> contexts;
  for (int64_t n = 1; n < c.max_position_embeddings; n *= 4) contexts.push_back(n);
  contexts.push_back(c.max_position_embeddings);
  return contexts;
}

Json costs_json(const Architecture& a) {
  Json costs = Json::array();
  for (const int64_t context : some_contexts(a.config)) {
    Json cost = {{"context", context}, {"flops", a.flops(context)}};
    for (const KvType type : kKvTypes) {
      cost["bytes_read"][std::string(name_of(type))] = a.bytes_read(type, context);
      cost["kv_cache"][std::string(name_of(type))] = a.kv_bytes(type, context);
    }
    costs.push_back(std::move(cost));
  }
  return costs;
}

Json config_json(const Config& c) {
  return {{"family", static_cast<int>(c.family)},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"max_position_embeddings", c.max_position_embeddings},
          {"qk_norm", c.qk_norm()},
          {"post_norms", c.post_norms()},
          {"tie_word_embeddings", c.tie_word_embeddings},
          {"attn_logit_softcapping", c.attn_logit_softcapping},
          {"final_logit_softcapping", c.final_logit_softcapping}};
}

std::string drawing(const Architecture& a, int64_t context) {
  Json data = to_json(a);
  data.erase("costs");
  data["start"] = context;
  data["kv_row"] = Json::object();  // bytes of a position's keys and values in a layer
  for (const KvType type : kKvTypes)
    data["kv_row"][std::string(name_of(type))] =
        2 * int64_t{a.config.num_key_value_heads} * kv_row_bytes(type, a.config.head_dim);
  return fmt::format(
      "<div class=\"controls\"><label>Context <input type=\"range\" class=\"context\" min=\"0\" "
      "max=\"1000\"></label><label>Tint by <select class=\"tint\"><option "
      "value=\"flops\">operations "
      "of a token</option><option value=\"parameters\">parameters</option><option "
      "value=\"bytes\">bytes</option></select></label><label>Cache <select "
      "class=\"cache\"></select>"
      "</label></div>\n"
      "<p><output class=\"totals\" aria-live=\"polite\"></output></p>\n"
      "<div class=\"architecture\"><div class=\"stack\" role=\"group\" aria-label=\"Layers; arrow "
      "keys move\"></div><div class=\"inside\" aria-live=\"polite\"></div></div>\n"
      "<script>const modelArchitecture = {};\n{}</script>\n",
      script_json(data), assets::kArchitectureJs);
}

Chart flops_chart(const Architecture& a) {
  Chart chart{.title = "Operations of a token, as the context grows",
              .x_title = "positions",
              .y_title = "millions of operations"};
  Chart::Series all{.name = "all"}, attention{.name = "of them, attention"};
  const int64_t without = a.flops(0);
  constexpr int kSteps = 32;
  for (int i = 0; i <= kSteps; ++i) {
    const int64_t context =
        std::max<int64_t>(1, int64_t{a.config.max_position_embeddings} * i / kSteps);
    const auto x = static_cast<double>(context);
    all.points.emplace_back(x, static_cast<double>(a.flops(context)) * 1e-6);
    attention.points.emplace_back(x, static_cast<double>(a.flops(context) - without) * 1e-6);
  }
  chart.series = {all, attention};
  return chart;
}

ReportTable table(const Architecture& a) {
  ReportTable t{
      .columns = {{"tensor"}, {"shape"}, {"format"}, {"parameters", true}, {"bytes", true}}};
  const auto add = [&](const std::string& where, const TensorFigures& tensor) {
    t.rows.push_back({where + tensor.name,
                      tensor.cols > 0 ? fmt::format("{} x {}", tensor.rows, tensor.cols)
                                      : std::to_string(tensor.rows),
                      tensor.format, std::to_string(tensor.parameters()),
                      std::to_string(tensor.bytes)});
  };
  add("", a.embedding);
  for (const LayerArchitecture& layer : a.layers)
    for (const TensorFigures& tensor : layer.tensors)
      add(fmt::format("layers.{}.", layer.layer), tensor);
  add("", a.norm);
  if (!a.config.tie_word_embeddings) add("", a.head);
  return t;
}

}  // namespace

nlohmann::ordered_json to_json(const Architecture& a) {
  Json layers = Json::array();
  for (const LayerArchitecture& layer : a.layers) layers.push_back(layer_json(layer));
  return {{"model", a.model},
          {"config", config_json(a.config)},
          {"parameters", a.parameters()},
          {"bytes", a.bytes()},
          {"embedding", tensor_json(a.embedding)},
          {"layers", layers},
          {"norm", tensor_json(a.norm)},
          {"head", tensor_json(a.head)},
          {"costs", costs_json(a)}};
}

Report architecture_report(const Architecture& a, int64_t context) {
  const Config& c = a.config;
  Report report{.title = "The architecture of " + a.model};
  report.facts = {
      {"generation", fmt::format("Gemma {} ({})", static_cast<int>(c.family), c.model_type)},
      {"parameters", std::to_string(a.parameters())},
      {"bytes", std::to_string(a.bytes())},
      {"layers", fmt::format("{}, {} of them local", c.num_hidden_layers,
                             std::ranges::count(c.layer_types, LayerType::kSliding))},
      {"heads", fmt::format("{} of {}, {} for keys and values", c.num_attention_heads, c.head_dim,
                            c.num_key_value_heads)},
      {"context", std::to_string(c.max_position_embeddings)}};
  report.opening = {{"From token to logits", drawing(a, context)}};
  report.style = assets::kArchitectureCss;
  report.charts = {flops_chart(a)};
  report.table = table(a);
  report.notes = {"docs/performance.md says which operations are counted."};
  report.records = to_json(a)["layers"];
  return report;
}

}  // namespace lapidary
