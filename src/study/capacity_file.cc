#include "study/capacity_file.h"

#include "study/training_cells.h"

namespace lapidary {

OrderedJson to_json(const CapacityOptions& o) {
  OrderedJson options = {{"sizes", o.sizes},
                         {"loads", o.loads},
                         {"layers", o.layers},
                         {"vocabulary", o.vocabulary},
                         {"epochs", o.epochs}};
  put_recipe(options, o.recipe);
  return options;
}

OrderedJson to_json(const CapacityRun& r) {
  return {{"size", r.size},
          {"load", r.load},
          {"parameters", r.parameters},
          {"sequences", r.sequences},
          {"tokens", r.tokens},
          {"data_bits", r.data_bits},
          {"memorized_bits", r.memorized_bits},
          {"bits_per_parameter", r.bits_per_parameter()},
          {"control_bits", r.control_bits},
          {"epochs", r.epochs},
          {"steps", r.steps},
          {"loss", r.loss},
          {"seconds", r.seconds}};
}

OrderedJson to_json(const CapacityStudy& study) {
  OrderedJson runs = OrderedJson::array(), halves = OrderedJson::array(),
              sizes = OrderedJson::array();
  for (const CapacityRun& run : study.runs) runs.push_back(to_json(run));
  for (const CapacityRun& run : study.halves) halves.push_back(to_json(run));
  for (const CapacityOfSize& size : study.sizes)
    sizes.push_back({{"parameters", size.parameters},
                     {"capacity_bits", size.capacity_bits},
                     {"bits_per_parameter", size.bits_per_parameter()},
                     {"gain_of_data",
                      size.gain_of_data ? OrderedJson(*size.gain_of_data) : OrderedJson(nullptr)},
                     {"gain_of_training", size.gain_of_training},
                     {"data_plateau", size.data_plateau},
                     {"training_plateau", size.training_plateau}});
  return {{"options", to_json(study.options)},
          {"bits_per_parameter", study.bits_per_parameter},
          {"largest_residual", study.largest_residual},
          {"sizes", sizes},
          {"runs", runs},
          {"halves", halves}};
}

CapacityRun read_capacity_run(const std::filesystem::path& file) {
  const Json json = read_json_file(file);
  const JsonObject o(json, file.string());
  return {.size = o.integer("size"),
          .load = o.number("load"),
          .parameters = o.integer("parameters"),
          .sequences = o.integer("sequences"),
          .tokens = o.integer("tokens"),
          .data_bits = o.number("data_bits"),
          .memorized_bits = o.number("memorized_bits"),
          .control_bits = o.number("control_bits"),
          .epochs = o.integer("epochs"),
          .steps = o.integer("steps"),
          .loss = o.number("loss"),
          .seconds = o.number("seconds")};
}

}  // namespace lapidary
