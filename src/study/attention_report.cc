#include "study/attention_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <openssl/evp.h>

#include <fmt/format.h>

#include "report/html.h"
#include "study/assets.h"
#include "study/token_text.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

std::string base64(const std::vector<unsigned char>& bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and a zero, which OpenSSL writes
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(),
                                     static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  return text;
}

HeatMap heat_map(const AttentionStudy& study, const std::string& title, auto&& value) {
  HeatMap map{.title = title, .corner = "layer"};
  for (const HeadFigures& h : study.heads) {
    if (h.head == 0) {
      const LayerAttention& layer = study.layers[static_cast<size_t>(h.layer)];
      map.rows.push_back(fmt::format("{}{}", h.layer, layer.sliding ? "" : " global"));
      map.values.emplace_back();
    }
    if (h.layer == 0) map.columns.push_back(fmt::format("head {}", h.head));
    map.values.back().push_back(value(h));
  }
  return map;
}

bool any_repeats(const AttentionStudy& study) {
  return !study.heads.empty() && study.heads.front().induction.has_value();
}

std::vector<HeatMap> heat_maps(const AttentionStudy& study) {
  std::vector<HeatMap> maps = {
      heat_map(study, "Effective number of keys: e to the entropy of the weights",
               [](auto& h) { return h.effective_keys; }),
      heat_map(study, "Weight on the first token", [](auto& h) { return h.sink; }),
      heat_map(study, "Weight on the token before", [](auto& h) { return h.previous; }),
      heat_map(study, "Weight on the token itself", [](auto& h) { return h.self; }),
      heat_map(study, "Mean distance, tokens", [](auto& h) { return h.distance; })};
  if (any_repeats(study)) {
    maps.push_back(heat_map(study, "Weight on the same token before",
                            [](auto& h) { return h.duplicate.value_or(kNothing); }));
    maps.push_back(heat_map(study, "Induction: weight on what came after the same token before",
                            [](auto& h) { return h.induction.value_or(kNothing); }));
  }
  return maps;
}

// Weight by distance, the mean over the heads of a kind of layers.
Chart distance_chart(const AttentionStudy& study) {
  Chart chart{.title = "How far back heads look",
              .x_title = "tokens back, from 2^(x-1) on (0: the token itself)",
              .y_title = "weight"};
  for (const bool sliding : {true, false}) {
    std::vector<double> sum;
    double heads = 0;
    for (const HeadFigures& h : study.heads) {
      if (study.layers[static_cast<size_t>(h.layer)].sliding != sliding) continue;
      sum.resize(std::max(sum.size(), h.by_distance.size()));
      for (size_t i = 0; i < h.by_distance.size(); ++i) sum[i] += h.by_distance[i];
      heads += 1;
    }
    if (heads == 0) continue;
    Chart::Series series{.name = sliding ? "local layers" : "global layers"};
    for (size_t i = 0; i < sum.size(); ++i)
      series.points.emplace_back(static_cast<double>(i), sum[i] / heads);
    chart.series.push_back(std::move(series));
  }
  return chart;
}

using LayerFigure = std::optional<double> LayerAttention::*;

Chart layer_chart(const AttentionStudy& study, const std::string& title, const std::string& y,
                  const std::vector<std::pair<std::string, LayerFigure>>& figures) {
  Chart chart{.title = title, .x_title = "layer", .y_title = y};
  for (const auto& [name, figure] : figures) {
    Chart::Series series{.name = name};
    for (const LayerAttention& layer : study.layers)
      if (const std::optional<double>& value = layer.*figure)
        series.points.emplace_back(layer.layer, *value);
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

// Grouped-query attention: whether heads that share keys and values look at more of the same.
Chart similarity_chart(const AttentionStudy& study) {
  return layer_chart(study, "How alike the heads of a layer are", "mean cosine of their weights",
                     {{"all heads", &LayerAttention::similarity},
                      {"that share keys and values", &LayerAttention::shared_similarity},
                      {"that do not", &LayerAttention::other_similarity}});
}

std::string patterns_html(const AttentionStudy& study, const Engine& engine) {
  Json heads = Json::array(), tokens = Json::array();
  std::vector<unsigned char> bytes;
  for (const PatternPicture& picture : study.pictures) {
    heads.push_back({{"layer", picture.layer},
                     {"head", picture.head},
                     {"sliding", study.layers[static_cast<size_t>(picture.layer)].sliding}});
    for (const float weight : picture.pixels)
      bytes.push_back(static_cast<unsigned char>(std::lround(255 * std::sqrt(weight))));
  }
  for (const Token id : study.tokens) tokens.push_back(text_of(engine, id));
  const Json all = {{"size", study.picture_size},
                    {"scale", study.picture_scale},
                    {"tokens", tokens},
                    {"heads", heads},
                    {"data", base64(bytes)}};
  return fmt::format(
      "<p>A row is a query, a column a key{}; tints go with the root of the weight.</p>\n"
      "<div class=\"pattern\"><canvas role=\"img\" tabindex=\"0\"></canvas>"
      "<output aria-live=\"polite\"></output></div>\n<div class=\"heads\"></div>\n"
      "<script>const attentionPatterns = {};\n{}</script>\n",
      study.picture_scale > 1
          ? fmt::format(", {0} tokens each: the largest of {0} x {0} weights", study.picture_scale)
          : "",
      script_json(all), assets::kAttentionJs);
}

std::string rollout_html(const AttentionStudy& study, const Engine& engine) {
  std::vector<TintedToken> tokens;
  const int64_t group = study.rollout_group;
  for (size_t i = 0; i < study.tokens.size(); ++i) {
    const double share = study.rollout[i / static_cast<size_t>(group)];
    tokens.push_back(
        {.text = text_of(engine, study.tokens[i]),
         .strength = share,
         .says = fmt::format("{:.2f} %{}", 100 * share, group > 1 ? ", its group's" : "")});
  }
  return fmt::format(
             "<p>Attention rollout: what the last position's stream is made of after all layers, "
             "if each layer's output is half the position itself and half what its heads look "
             "at{}.</p>\n",
             group > 1 ? fmt::format("; of {} neighbouring tokens together", group) : "") +
         tinted_text(tokens);
}

Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

nlohmann::ordered_json to_json(const HeadFigures& h) {
  return {{"layer", h.layer},
          {"head", h.head},
          {"entropy", h.entropy},
          {"effective_keys", h.effective_keys},
          {"distance", h.distance},
          {"sink", h.sink},
          {"previous", h.previous},
          {"self", h.self},
          {"duplicate", optional_json(h.duplicate)},
          {"induction", optional_json(h.induction)},
          {"by_distance", h.by_distance}};
}

nlohmann::ordered_json to_json(const AttentionStudy& study) {
  Json heads = Json::array(), layers = Json::array();
  for (const HeadFigures& h : study.heads) {
    heads.push_back(to_json(h));
    heads.back()["sliding"] = study.layers[static_cast<size_t>(h.layer)].sliding;
  }
  for (const LayerAttention& layer : study.layers)
    layers.push_back({{"layer", layer.layer},
                      {"sliding", layer.sliding},
                      {"similarity", optional_json(layer.similarity)},
                      {"shared_similarity", optional_json(layer.shared_similarity)},
                      {"other_similarity", optional_json(layer.other_similarity)},
                      {"rollout_sources", optional_json(layer.rollout_sources)}});
  return {{"tokens", study.tokens},
          {"seconds", study.seconds},
          {"look_seconds", study.look_seconds},
          {"heads", heads},
          {"layers", layers},
          {"rollout", study.rollout},
          {"rollout_group", study.rollout_group}};
}

Report attention_report(const AttentionStudy& study, const Engine& engine) {
  const auto global = std::ranges::count(study.layers, false, &LayerAttention::sliding);
  Report report{.title = "What " + engine.folder().filename().string() + " looks at"};
  report.facts = {
      {"tokens", std::to_string(study.tokens.size())},
      {"layers", fmt::format("{} local, {} global", std::ssize(study.layers) - global, global)},
      {"heads",
       fmt::format("{} in each, {} of keys and values", engine.config().num_attention_heads,
                   engine.config().num_key_value_heads)},
      {"time", fmt::format("{:.2f} s, of them {:.2f} to look", study.seconds, study.look_seconds)}};
  const std::string sources =
      study.rollout_group == 1 ? "tokens" : fmt::format("groups of {} tokens", study.rollout_group);
  report.charts = {
      distance_chart(study), similarity_chart(study),
      layer_chart(study, fmt::format("How many {} a position's stream is made of", sources),
                  fmt::format("effective {}, by rollout", sources),
                  {{"by rollout", &LayerAttention::rollout_sources}})};
  report.heat_maps = heat_maps(study);
  report.sections.push_back({"Weights of every head", patterns_html(study, engine)});
  report.sections.push_back({"What reaches the last token", rollout_html(study, engine)});
  report.style = assets::kStudyCss;
  report.notes = {
      "Figures are means over the queries of the text but the first; docs/study.md defines them. "
      "Weights are computed beside the model from its own queries and keys."};
  report.records = to_json(study)["heads"];
  return report;
}

}  // namespace lapidary
