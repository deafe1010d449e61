#include "study/matrix_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "study/matrix_map.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

Json id_json(const MatrixId& id) {
  return {{"layer", id.layer}, {"matrix", id.name}};
}

Json optional_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json error_json(const std::optional<MatrixError>& error) {
  return error ? Json{{"weights", error->weights}, {"outputs", error->outputs}} : Json(nullptr);
}

Json ablation_json(const Ablation& a, double nll) {
  Json json = {{"layer", a.layer}};
  if (a.head >= 0) json["head"] = a.head;
  json.update({{"nll", a.nll}, {"change", a.nll - nll}, {"top1_agreement", a.top1}});
  return json;
}

// A figure of each of a list, which is in the order of the matrices.
template <class List, class Fn>
std::vector<double> values_of(const List& list, Fn&& fn) {
  std::vector<double> values;
  for (const auto& entry : list) values.push_back(fn(entry));
  return values;
}

void add_spectra(const std::vector<WeightSpectrum>& spectra, MatrixMap& map) {
  map.figures.push_back({"stable rank",
                         "Sum of the squared singular values over the largest squared: how many "
                         "directions carry the matrix.",
                         values_of(spectra, [](auto& s) { return s.stable_rank; })});
  map.figures.push_back(
      {"effective rank",
       "e to the entropy of the singular values, over the number of them: 1 if all are equal.",
       values_of(spectra, [](auto& s) {
         return s.effective_rank / static_cast<double>(std::min(s.rows, s.cols));
       })});
  map.figures.push_back(
      {"tail exponent",
       "Exponent of the tail of the squared singular values (Hill, upper half): the smaller, the "
       "heavier, which comes of training.",
       values_of(spectra, [](auto& s) { return s.tail_exponent.value_or(NAN); })});
  map.figures.push_back(
      {"largest", "The largest singular value.",
       values_of(spectra, [](auto& s) { return s.values.empty() ? 0 : s.values[0]; }), true});
  map.figures.push_back(
      {"norm", "Frobenius norm.", values_of(spectra, [](auto& s) { return s.norm; }), true});
  map.curve_title = "singular values";
  for (const WeightSpectrum& s : spectra) map.curves.push_back(s.values);
}

void add_gradients(const GradientFlow& flow, MatrixMap& map) {
  map.figures.push_back({"gradient over weight",
                         "Norm of the gradient of the text's loss, over that of the matrix.",
                         values_of(flow.matrices, [](auto& g) { return g.relative; }), true});
  map.figures.push_back({"gradient", "Norm of the gradient of the text's loss.",
                         values_of(flow.matrices, [](auto& g) { return g.norm; }), true});
}

void add_errors(const QuantizationErrors& errors, MatrixMap& map) {
  const auto add = [&](const std::string& name, const std::string& meaning,
                       std::optional<MatrixError> MatrixErrors::*error, double MatrixError::*part) {
    std::vector<double> values = values_of(
        errors.matrices, [&](const MatrixErrors& e) { return e.*error ? *(e.*error).*part : NAN; });
    if (std::ranges::any_of(values, [](double v) { return std::isfinite(v); }))
      map.figures.push_back({name, meaning, std::move(values), true});
  };
  add("error of outputs",
      "How far what it makes of the text is from what the original's does, over its size.",
      &MatrixErrors::own, &MatrixError::outputs);
  add("error", "How far it is from the original's, over its size.", &MatrixErrors::own,
      &MatrixError::weights);
  add("4 bits: error of outputs",
      "What rounding to 4 bits in groups of 64 would do to what it makes of the text.",
      &MatrixErrors::at_4_bits, &MatrixError::outputs);
  add("4 bits: error", "What rounding to 4 bits in groups of 64 would do to it.",
      &MatrixErrors::at_4_bits, &MatrixError::weights);
}

}  // namespace

nlohmann::ordered_json to_json(const AblationStudy& study) {
  Json layers = Json::array(), heads = Json::array();
  for (const Ablation& a : study.layers) layers.push_back(ablation_json(a, study.nll));
  for (const Ablation& a : study.heads) heads.push_back(ablation_json(a, study.nll));
  return {{"predicted", study.predicted},
          {"nll", study.nll},
          {"seconds", study.seconds},
          {"layers", layers},
          {"heads", heads}};
}

void add_to(Report& report, const AblationStudy& study) {
  report.facts.emplace_back("loss of the whole model", fmt::format("{:.4f} nats per token, over {}",
                                                                   study.nll, study.predicted));
  if (!study.layers.empty()) {
    Chart chart{.title = "What the loss grows by without a layer",
                .x_title = "layer",
                .y_title = "nats per token",
                .series = {{.name = "without the layer"}}};
    for (const Ablation& a : study.layers)
      chart.series[0].points.emplace_back(a.layer, a.nll - study.nll);
    report.charts.push_back(std::move(chart));
  }
  if (study.heads.empty()) return;
  HeatMap map{.title = "What the loss grows by without a head, thousandths of a nat per token",
              .corner = "layer"};
  for (const Ablation& a : study.heads) {
    if (a.head == 0) {
      map.rows.push_back(std::to_string(a.layer));
      map.values.emplace_back();
    }
    if (a.layer == 0) map.columns.push_back(fmt::format("head {}", a.head));
    map.values.back().push_back(1000 * (a.nll - study.nll));
  }
  report.heat_maps.push_back(std::move(map));
}

void add_to(Json& figures, const MatrixStudies& studies) {
  for (const WeightSpectrum& s : studies.spectra) {
    Json json = id_json(s.id);
    json.update({{"rows", s.rows},
                 {"cols", s.cols},
                 {"format", s.format},
                 {"norm", s.norm},
                 {"stable_rank", s.stable_rank},
                 {"effective_rank", s.effective_rank},
                 {"tail_exponent", optional_json(s.tail_exponent)},
                 {"singular_values", s.values}});
    figures["spectra"].push_back(std::move(json));
  }
  if (studies.gradients) {
    Json matrices = Json::array();
    for (const MatrixGradient& g : studies.gradients->matrices) {
      matrices.push_back(id_json(g.id));
      matrices.back().update({{"norm", g.norm}, {"relative", g.relative}});
    }
    figures["gradients"] = {{"nll", studies.gradients->nll},
                            {"checkpoint_layers", studies.gradients->checkpoint_layers},
                            {"seconds", studies.gradients->seconds},
                            {"matrices", matrices}};
  }
  if (studies.errors) {
    Json matrices = Json::array();
    for (const MatrixErrors& e : studies.errors->matrices) {
      matrices.push_back(id_json(e.id));
      matrices.back().update({{"own", error_json(e.own)}, {"at_4_bits", error_json(e.at_4_bits)}});
    }
    figures["quantization"] = {{"sampled", studies.errors->sampled},
                               {"seconds", studies.errors->seconds},
                               {"matrices", matrices}};
  }
}

void add_to(Report& report, const MatrixStudies& studies) {
  MatrixMap map;
  const auto name = [&](const auto& list) {
    if (!map.matrices.empty()) return;
    for (const auto& entry : list) map.matrices.push_back(entry.id);
  };
  if (!studies.spectra.empty()) {
    name(studies.spectra);
    add_spectra(studies.spectra, map);
  }
  if (studies.gradients) {
    name(studies.gradients->matrices);
    add_gradients(*studies.gradients, map);
  }
  if (studies.errors) {
    name(studies.errors->matrices);
    add_errors(*studies.errors, map);
  }
  if (!map.matrices.empty()) report.sections.push_back(draw("Matrices", map, report));
}

}  // namespace lapidary
