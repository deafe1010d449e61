#include "study/layers_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include <fmt/format.h>

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

struct Line {
  std::string name;
  double (*value)(const LayerFigures&);
};

Chart chart(const LayerStudy& study, const std::string& title, const std::string& y,
            const std::vector<Line>& lines, bool log = false) {
  Chart made{.title = title, .x_title = "layer", .y_title = y, .log_y = log};
  for (const Line& line : lines) {
    Chart::Series series{.name = line.name};
    for (const LayerFigures& f : study.layers) series.points.emplace_back(f.layer, line.value(f));
    made.series.push_back(std::move(series));
  }
  return made;
}

std::vector<Chart> charts(const LayerStudy& study) {
  return {
      chart(study, "Length of the residual stream, and of what is added to it", "length",
            {{"stream after the layer", [](auto& f) { return f.norm; }},
             {"attention", [](auto& f) { return f.attention_norm; }},
             {"MLP", [](auto& f) { return f.mlp_norm; }}},
            true),
      chart(study, "Logit lens: predictions if the model ended here", "nats",
            {{"-ln p(the token that follows)", [](auto& f) { return f.lens.target_nll; }},
             {"divergence from the model's own", [](auto& f) { return f.lens.kl_to_final; }},
             {"entropy", [](auto& f) { return f.lens.entropy; }}}),
      chart(study, "Logit lens: tokens held likelier than the one that follows", "1 + median rank",
            {{"1 + median rank", [](auto& f) { return 1 + f.lens.target_rank; }}}, true),
      chart(study, "What is added to the logit of the token that follows", "logit",
            {{"attention", [](auto& f) { return f.attention_logit; }},
             {"MLP", [](auto& f) { return f.mlp_logit; }}}),
      chart(study, "Directions that the stream uses", "effective rank",
            {{"effective rank", [](auto& f) { return f.effective_rank; }}}),
      chart(study, "Neurons at work", "share",
            {{"gates above 0", [](auto& f) { return f.gate_open; }},
             {"participation", [](auto& f) { return f.neurons; }}}),
      chart(study, "The largest feature of the stream, over the median one", "ratio",
            {{"largest over median", [](auto& f) { return f.outlier_ratio; }}}, true)};
}

HeatMap similarity(const LayerStudy& study) {
  HeatMap map{.title = "How alike the streams after layers are (CKA)", .corner = "after layer"};
  for (size_t i = 0; i < study.similarity.size(); ++i)
    map.rows.push_back(i == 0 ? "none" : std::to_string(i - 1));
  map.columns = map.rows;
  map.values = study.similarity;
  return map;
}

// The features that stand out most in any layer: often the same ones all the way.
HeatMap feature_map(const LayerStudy& study) {
  constexpr size_t kShown = 16;
  const size_t width = study.layers.front().features.size();
  std::vector<double> most(width);
  for (const LayerFigures& f : study.layers)
    for (size_t i = 0; i < width; ++i) most[i] = std::max(most[i], f.features[i]);
  std::vector<size_t> order(width);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return most[i]; });
  order.resize(std::min(width, kShown));
  std::ranges::sort(order);
  HeatMap map{.title = "Features that stand out: root mean square over the median feature's",
              .corner = "layer"};
  for (const size_t i : order) map.columns.push_back(std::to_string(i));
  for (const LayerFigures& f : study.layers) {
    map.rows.push_back(std::to_string(f.layer));
    map.values.emplace_back();
    for (const size_t i : order) map.values.back().push_back(f.features[i]);
  }
  return map;
}

ReportTable table(const LayerStudy& study) {
  ReportTable t{.columns = {{"layer", true},
                            {"keys"},
                            {"length", true},
                            {"attention", true},
                            {"MLP", true},
                            {"outlier", true},
                            {"ratio", true},
                            {"kurtosis", true},
                            {"gates", true},
                            {"neurons", true},
                            {"rank", true},
                            {"lens nll", true},
                            {"lens KL", true},
                            {"target rank", true}}};
  for (const LayerFigures& f : study.layers)
    t.rows.push_back(
        {std::to_string(f.layer), f.sliding ? "local" : "global", fmt::format("{:.1f}", f.norm),
         fmt::format("{:.1f}", f.attention_norm), fmt::format("{:.1f}", f.mlp_norm),
         std::to_string(f.outlier), fmt::format("{:.1f}", f.outlier_ratio),
         fmt::format("{:.1f}", f.kurtosis), fmt::format("{:.3f}", f.gate_open),
         fmt::format("{:.3f}", f.neurons), fmt::format("{:.1f}", f.effective_rank),
         fmt::format("{:.3f}", f.lens.target_nll), fmt::format("{:.3f}", f.lens.kl_to_final),
         fmt::format("{:.0f}", f.lens.target_rank)});
  return t;
}

Json layer_json(const LayerFigures& f) {
  Json features = Json::array();  // to three places: there are many
  for (const double ratio : f.features) features.push_back(std::round(1000 * ratio) / 1000);
  return {{"layer", f.layer},
          {"sliding", f.sliding},
          {"norm", f.norm},
          {"attention_norm", f.attention_norm},
          {"mlp_norm", f.mlp_norm},
          {"outlier", f.outlier},
          {"outlier_ratio", f.outlier_ratio},
          {"features", features},
          {"kurtosis", f.kurtosis},
          {"gate_open", f.gate_open},
          {"neurons", f.neurons},
          {"effective_rank", f.effective_rank},
          {"lens",
           {{"entropy", f.lens.entropy},
            {"kl_to_final", f.lens.kl_to_final},
            {"target_nll", f.lens.target_nll},
            {"target_rank", f.lens.target_rank},
            {"top1", f.lens.top1}}},
          {"attention_logit", f.attention_logit},
          {"mlp_logit", f.mlp_logit}};
}

}  // namespace

nlohmann::ordered_json to_json(const LayerStudy& study) {
  Json layers = Json::array();
  for (const LayerFigures& f : study.layers) layers.push_back(layer_json(f));
  return {{"tokens", study.tokens},
          {"sampled", study.sampled},
          {"lens_sampled", study.lens_sampled},
          {"embedding_norm", study.embedding_norm},
          {"embedding_logit", study.embedding_logit},
          {"target_logit", study.target_logit},
          {"seconds", study.seconds},
          {"look_seconds", study.look_seconds},
          {"lens_seconds", study.lens_seconds},
          {"layers", layers},
          {"similarity", study.similarity}};
}

Report layers_report(const LayerStudy& study, const Engine& engine) {
  Report report{.title = "The layers of " + engine.folder().filename().string()};
  report.facts = {
      {"tokens", std::to_string(study.tokens)},
      {"positions of ranks and likeness", std::to_string(study.sampled)},
      {"positions of the lens", std::to_string(study.lens_sampled)},
      {"weights", engine.weight_format()},
      {"logit of the token that follows, over the mean", fmt::format("{:.3f}", study.target_logit)},
      {"of it, from the embedding", fmt::format("{:.3f}", study.embedding_logit)},
      {"time", fmt::format("{:.2f} s, of them {:.2f} to look; the lens {:.2f}", study.seconds,
                           study.look_seconds, study.lens_seconds)}};
  report.charts = charts(study);
  report.heat_maps = {feature_map(study), similarity(study)};
  report.table = table(study);
  report.notes = {"docs/study.md defines the figures."};
  report.records = to_json(study)["layers"];
  return report;
}

}  // namespace lapidary
