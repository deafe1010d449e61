#include "study/text_capacity_file.h"

#include "study/memorization_report.h"
#include "study/training_cells.h"

namespace lapidary {

namespace {

OrderedJson options_json(const TextCapacityOptions& o) {
  OrderedJson options = {
      {"text", o.text.filename().string()},
      {"tokenizer",
       o.tokenizer.empty() ? "bytes" : (o.tokenizer / "").parent_path().filename().string()},
      {"sizes", o.sizes},
      {"loads", o.loads},
      {"layers", o.layers},
      {"steps", o.steps},
      {"held_out", o.held_out},
      {"capacity", o.capacity}};
  put_recipe(options, o.recipe);
  return options;
}

OrderedJson place(const std::optional<size_t>& run) {
  return run ? OrderedJson(*run) : OrderedJson(nullptr);
}

OrderedJson size_json(const TextCapacityOfSize& size) {
  OrderedJson runs = OrderedJson::array(), descent(nullptr);
  for (const TextCapacityRun& run : size.runs) runs.push_back(to_json(run));
  if (const auto& found = size.double_descent)
    descent = {{"peak", found->peak}, {"rise", found->rise}, {"fall", found->fall}};
  return {{"parameters", size.parameters},
          {"capacity_bits", size.capacity_bits},
          {"double_descent", descent},
          {"grokking", place(size.grokking)},
          {"data_pass", place(size.data_pass)},
          {"reference_pass", place(size.reference_pass)},
          {"most_memorized", size.most_memorized},
          {"gain_of_training",
           size.gain_of_training ? OrderedJson(*size.gain_of_training) : OrderedJson(nullptr)},
          {"training_plateau", size.training_plateau},
          {"runs", runs},
          {"half", to_json(size.half)}};
}

}  // namespace

OrderedJson to_json(const TextCapacityOptions& options, const TextSequences& text) {
  OrderedJson json = options_json(options);
  json["fingerprint"] = text.fingerprint;
  return json;
}

OrderedJson to_json(const TextCapacityRun& r) {
  return {{"size", r.size},
          {"load", r.load},
          {"parameters", r.parameters},
          {"sequences", r.sequences},
          {"tokens", r.tokens},
          {"data_bits", r.data_bits},
          {"reference_bits", r.reference_bits},
          {"train_loss", r.train_loss},
          {"test_loss", r.test_loss},
          {"memorized_bits", r.memorized_bits},
          {"test_memorized_bits", r.test_memorized_bits},
          {"memorized_bits_per_parameter", r.memorized_bits_per_parameter()},
          {"extraction_rate", r.extraction_rate},
          {"test_extraction_rate", r.test_extraction_rate},
          {"membership", to_json(r.membership)},
          {"expected_f1", r.expected_f1},
          {"steps", r.steps},
          {"seconds", r.seconds}};
}

OrderedJson to_json(const TextCapacityStudy& study) {
  OrderedJson sizes = OrderedJson::array();
  for (const TextCapacityOfSize& size : study.sizes) sizes.push_back(size_json(size));
  return {{"options", options_json(study.options)},
          {"vocabulary", study.vocabulary},
          {"sequences", study.sequences},
          {"duplicates", study.duplicates},
          {"sizes", sizes}};
}

TextCapacityRun read_text_capacity_run(const std::filesystem::path& file) {
  const Json json = read_json_file(file);
  const JsonObject o(json, file.string());
  const JsonObject m = o.object("membership");
  return {.size = o.integer("size"),
          .load = o.number("load"),
          .parameters = o.integer("parameters"),
          .sequences = o.integer("sequences"),
          .tokens = o.integer("tokens"),
          .data_bits = o.number("data_bits"),
          .reference_bits = o.number("reference_bits"),
          .train_loss = o.number("train_loss"),
          .test_loss = o.number("test_loss"),
          .memorized_bits = o.number("memorized_bits"),
          .test_memorized_bits = o.number("test_memorized_bits"),
          .extraction_rate = o.number("extraction_rate"),
          .test_extraction_rate = o.number("test_extraction_rate"),
          .membership = {.auc = m.number("auc"),
                         .f1 = m.number("f1"),
                         .threshold = m.number("threshold"),
                         .precision = m.number("precision"),
                         .recall = m.number("recall")},
          .expected_f1 = o.number("expected_f1"),
          .steps = o.integer("steps"),
          .seconds = o.number("seconds")};
}

}  // namespace lapidary
