#include "study/diff_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/statistics.h"
#include "study/assets.h"
#include "study/matrix_map.h"
#include "study/token_text.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

Json matrix_json(const MatrixDiff& d) {
  return {{"layer", d.id.layer},
          {"matrix", d.id.name},
          {"rows", d.rows},
          {"cols", d.cols},
          {"norm", d.norm},
          {"size", d.size},
          {"stable_rank", d.stable_rank},
          {"effective_rank", d.effective_rank},
          {"numerical_rank", d.numerical_rank},
          {"cosine", d.cosine ? Json(*d.cosine) : Json(nullptr)},
          {"overlap_out", d.overlap_out},
          {"overlap_in", d.overlap_in},
          {"singular_values", d.values}};
}

MatrixMap matrix_map(const std::vector<MatrixDiff>& matrices) {
  MatrixMap map;
  std::vector<double> size, stable, effective, cosine, out, in;
  for (const MatrixDiff& d : matrices) {
    const bool changed = d.size > 0;
    map.matrices.push_back(d.id);
    map.curves.push_back(d.values);
    size.push_back(d.size);
    stable.push_back(changed ? d.stable_rank : NAN);
    effective.push_back(changed ? d.effective_rank : NAN);
    cosine.push_back(d.cosine.value_or(NAN));
    out.push_back(1 - d.overlap_out);
    in.push_back(1 - d.overlap_in);
  }
  map.curve_title = "singular values of the change";
  map.figures = {
      {"size", "Norm of the change, over that of the matrix before.", std::move(size)},
      {"stable rank",
       "Of the change: sum of its squared singular values over the largest squared. A low-rank "
       "adapter cannot pass its rank; rounding has almost all that fit.",
       std::move(stable)},
      {"effective rank", "Of the change: e to the entropy of its singular values.",
       std::move(effective)},
      {"direction",
       "Cosine of the change with the matrix before: below 0 it shrinks what was there, above it "
       "strengthens it; near 0 it adds something else.",
       std::move(cosine)},
      {"turned, outputs",
       "How far the 8 strongest directions on the side of the outputs have turned: 0 not at all, 1 "
       "to others altogether.",
       std::move(out)},
      {"turned, inputs", "The same on the side of the inputs.", std::move(in)}};
  return map;
}

Chart layer_chart(const ModelDiff& diff, const std::string& title, const std::string& y,
                  auto&& value) {
  Chart chart{.title = title, .x_title = "layer", .y_title = y, .series = {{.name = y}}};
  for (const LayerDiff& layer : diff.text.layers)
    chart.series[0].points.emplace_back(layer.layer, value(layer));
  return chart;
}

std::vector<Chart> charts(const ModelDiff& diff) {
  std::vector<Chart> list = {
      layer_chart(diff, "How far the residual stream is off after each layer", "|B - A| / |A|",
                  [](auto& layer) { return layer.stream; }),
      layer_chart(diff, "How different the streams of a text are", "1 - CKA",
                  [](auto& layer) { return 1 - layer.similarity; }),
      layer_chart(diff, "How much of its attention a head has moved", "total variation",
                  [](auto& layer) { return mean(layer.attention); })};
  if (diff.swapped.empty()) return list;
  list.push_back(layer_chart(
      diff, "What A's loss grows by with one layer of B", "nats per token", [&](auto& layer) {
        return diff.swapped[static_cast<size_t>(layer.layer)] - diff.text.nll_a;
      }));
  return list;
}

HeatMap attention_map(const TextDiff& text) {
  HeatMap map{.title = "Attention that each head has moved: total variation", .corner = "layer"};
  for (const LayerDiff& layer : text.layers) {
    map.rows.push_back(fmt::format("{}{}", layer.layer, layer.sliding ? "" : " global"));
    map.values.push_back(layer.attention);
  }
  for (size_t head = 0; head < text.layers[0].attention.size(); ++head)
    map.columns.push_back(fmt::format("head {}", head));
  return map;
}

ReportTable others_table(const std::vector<TensorDiff>& others) {
  ReportTable table{.columns = {{"beside the layers' matrices"}, {"size of the change", true}}};
  for (const TensorDiff& t : others)
    if (t.size > 0) table.rows.push_back({t.name, fmt::format("{:.3g}", t.size)});
  if (table.rows.empty()) table.columns.clear();
  return table;
}

// The text, each token tinted by what its likelihood lost or won.
std::string text_html(const TextDiff& text, const Engine& engine, std::span<const Token> tokens) {
  std::vector<TintedToken> tinted;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double gain = i > 0 ? text.gain[i - 1] : 0;
    tinted.push_back({.text = text_of(engine, tokens[i]),
                      .strength = std::abs(gain),
                      .worse = gain > 0,
                      .says = fmt::format("{:+.3f} nats", gain)});
  }
  return "<p>Tinted by the change of -ln p of each token: <span class=\"key worse\">B expects it "
         "less</span> <span class=\"key better\">B expects it more</span></p>\n" +
         tinted_text(tinted);
}

}  // namespace

double ModelDiff::size(int layer) const {
  double change = 0, before = 0;
  for (const MatrixDiff& d : weights.matrices) {
    if (layer >= 0 && d.id.layer != layer) continue;
    change += std::pow(d.size * d.norm, 2);
    before += d.norm * d.norm;
  }
  return before > 0 ? std::sqrt(change / before) : 0;
}

nlohmann::ordered_json to_json(const ModelDiff& diff) {
  Json layers = Json::array(), matrices = Json::array(), others = Json::array();
  for (const LayerDiff& layer : diff.text.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"sliding", layer.sliding},
                      {"size", diff.size(layer.layer)},
                      {"stream", layer.stream},
                      {"similarity", layer.similarity},
                      {"attention", layer.attention}});
    if (!diff.swapped.empty())
      layers.back()["swapped_nll"] = diff.swapped[static_cast<size_t>(layer.layer)];
  }
  for (const MatrixDiff& d : diff.weights.matrices) matrices.push_back(matrix_json(d));
  for (const TensorDiff& t : diff.weights.others)
    others.push_back({{"tensor", t.name}, {"size", t.size}});
  return {{"predicted", diff.text.predicted},
          {"nll_a", diff.text.nll_a},
          {"nll_b", diff.text.nll_b},
          {"kld_mean", diff.text.kld},
          {"top1_agreement", diff.text.top1},
          {"size", diff.size()},
          {"seconds", diff.text.seconds},
          {"layers", layers},
          {"matrices", matrices},
          {"others", others},
          {"nll_gain", diff.text.gain}};
}

Report diff_report(const ModelDiff& diff, const std::string& title, const Engine& a,
                   const Engine& b, std::span<const Token> tokens) {
  const auto changed =
      std::ranges::count_if(diff.weights.matrices, [](const MatrixDiff& d) { return d.size > 0; });
  Report report{.title = title};
  report.facts = {
      {"A, before", fmt::format("{}, {}", a.folder().filename().string(), a.weight_format())},
      {"B, after", fmt::format("{}, {}", b.folder().filename().string(), b.weight_format())},
      {"matrices that changed", fmt::format("{} of {}", changed, diff.weights.matrices.size())},
      {"size of the change", fmt::format("{:.3g} of the layers' matrices", diff.size())},
      {"loss of the text, A and B",
       fmt::format("{:.4f} and {:.4f} nats per token, over {}", diff.text.nll_a, diff.text.nll_b,
                   diff.text.predicted)},
      {"divergence", fmt::format("{:.4g} nats per token; the likeliest token stays at {:.1f} %",
                                 diff.text.kld, 100 * diff.text.top1)}};
  report.style = assets::kStudyCss;
  report.opening.push_back(
      draw("What changed, matrix by matrix", matrix_map(diff.weights.matrices), report));
  report.charts = charts(diff);
  report.heat_maps = {attention_map(diff.text)};
  report.table = others_table(diff.weights.others);
  report.sections.push_back({"What the text's tokens lost and won",
                             text_html(diff.text, a.has_tokenizer() ? a : b, tokens)});
  report.notes = {"docs/study.md defines the figures."};
  report.records = to_json(diff)["matrices"];
  return report;
}

}  // namespace lapidary
