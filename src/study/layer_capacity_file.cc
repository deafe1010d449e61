#include "study/layer_capacity_file.h"

#include "study/training_cells.h"

namespace lapidary {

OrderedJson to_json(const LayerCapacityOptions& o) {
  OrderedJson options = {{"model", (o.model / "").parent_path().filename().string()},
                         {"data", o.data.empty() ? "random tokens" : o.data.filename().string()},
                         {"sequences", o.sequences},
                         {"layers", o.layers},
                         {"rank", o.rank},
                         {"steps", o.steps}};
  put_recipe(options, o.recipe);
  return options;
}

OrderedJson to_json(const LayerCapacityRun& r) {
  return {{"layer",
           r.layer == LayerCapacityRun::kAllLayers ? OrderedJson(nullptr) : OrderedJson(r.layer)},
          {"parameters", r.parameters},
          {"data_bits", r.data_bits},
          {"memorized_bits", r.memorized_bits},
          {"bits_per_parameter", r.bits_per_parameter()},
          {"control_bits", r.control_bits},
          {"loss", r.loss},
          {"steps", r.steps},
          {"seconds", r.seconds}};
}

OrderedJson to_json(const LayerCapacityStudy& study) {
  OrderedJson runs = OrderedJson::array();
  for (const LayerCapacityRun& run : study.runs) runs.push_back(to_json(run));
  return {{"options", to_json(study.options)},
          {"vocabulary", study.vocabulary},
          {"tokens", study.tokens},
          {"runs", runs}};
}

LayerCapacityRun read_layer_capacity_run(const std::filesystem::path& file) {
  const Json json = read_json_file(file);
  const JsonObject o(json, file.string());
  return {.layer = static_cast<int>(o.integer("layer", LayerCapacityRun::kAllLayers)),
          .parameters = o.integer("parameters"),
          .data_bits = o.number("data_bits"),
          .memorized_bits = o.number("memorized_bits"),
          .control_bits = o.number("control_bits"),
          .loss = o.number("loss"),
          .steps = o.integer("steps"),
          .seconds = o.number("seconds")};
}

}  // namespace lapidary
