// lapidary convert: models quantised, dequantised, or in the formats of other programs.
#include "lapidary/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/system.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::string input;
  std::string output;
  std::string format;
  bool quantize = false;
  FolderOptions folder;
  std::optional<std::string> type;  // of GGUF
  bool force = false;
  bool no_check = false;
  bool json = false;
  int threads = 0;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("MODEL", o.input,
                  "The model: a folder, a GGUF file, or a name in the hub's cache")
      ->type_name("MODEL")
      ->required();
  verb.add_option("-o,--output", o.output, "The folder or file to write")
      ->type_name("PATH")
      ->required()
      ->group("Output");
  choices(verb.add_option("--to", o.format,
                          "The format: a folder as MLX and Hugging Face read it, or a file for "
                          "llama.cpp (default: by the ending of PATH)")
              ->group("Output"),
          {"folder", "gguf"});
  verb.add_flag("--force", o.force, "Replace the model that is there")->group("Output");
  verb.add_flag("--no-check", o.no_check, "Do not compare the result with the source")
      ->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");

  const char* folder = "Folders";
  verb.add_flag("--quantize", o.quantize, "Quantise as MLX does, to 4 bits unless told otherwise")
      ->group(folder);
  verb.add_option("--bits,--q-bits", o.folder.bits,
                  "Bits of a code: 2, 3, 4, 5, 6 or 8 (4); quantises")
      ->type_name("N")
      ->group(folder);
  verb.add_option("--group-size,--q-group-size", o.folder.group_size,
                  "Weights that share a scale: 32, 64 or 128 (64)")
      ->type_name("N")
      ->group(folder);
  verb.add_option("--recipe,--quant-predicate", o.folder.recipe,
                  fmt::format("Other bits for some modules: {}, or a JSON file; quantises",
                              fmt::join(recipe_names(), ", ")))
      ->type_name("NAME|FILE")
      ->group(folder);
  verb.add_flag("-d,--dequantize", o.folder.dequantize, "Write dense weights")->group(folder);
  choices(verb.add_option("--dtype", o.folder.dtype,
                          "Of dense weights, or of scales and biases (default: as they are)")
              ->group(folder),
          {"bf16", "f16", "f32"});
  choices(verb.add_option("--type", o.type,
                          "What matrices are stored as (f16); the types of blocks take the "
                          "embedding too, norms are always f32")
              ->group("GGUF"),
          {"f32", "f16", "bf16", "q8_0", "q6_k", "q4_k_m", "q4_k", "q4_0"});
  add_threads(verb, o.threads, "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "A conversion ends with a check: the result is read again, every weight is compared, and the "
      "same tokens go through both models. What fails is not put in place.\n"
      "\n"
      "A recipe's file has patterns of module paths, of which the first that fits decides:\n"
      "  {\"*.v_proj\": {\"bits\": 6}, \"model.embed_tokens\": {\"bits\": 8, \"group_size\": 32},\n"
      "   \"*.layers.0.*\": false}\n"
      "\n"
      "A GGUF file becomes a folder: dense, in bf16 where it was quantised, unless --dtype or "
      "--bits "
      "say otherwise.\n"
      "\n"
      "GGUF is what llama.cpp reads. The tokenizer goes into the file; for a folder without one a "
      "placeholder does, with which token ids work and text means nothing.\n"
      "\n"
      "Examples:\n"
      "  lapidary convert ~/models/gemma-3-1b-it -o 1b-4bit --bits 4\n"
      "  lapidary convert ~/models/gemma-3-1b-it -o 1b-mixed --recipe mixed_4_6\n"
      "  lapidary convert 1b-4bit -o 1b-dense --dequantize --dtype bf16\n"
      "  lapidary convert ~/models/gemma-3-4b-it -o 4b.gguf --type q4_k_m\n"
      "  lapidary convert 4b-Q8_0.gguf -o 4b --bits 4");
}

bool is_gguf(const Options& o) {
  return o.format.empty() ? o.output.ends_with(".gguf") : o.format == "gguf";
}

// Flags that the format has no place for are mistakes, not wishes to pass over.
void check_flags(const Options& o) {
  const FolderOptions defaults;
  const bool folder_flags = o.quantize || o.folder.bits != 0 || !o.folder.recipe.empty() ||
                            o.folder.group_size != defaults.group_size || o.folder.dequantize ||
                            !o.folder.dtype.empty();
  if (is_gguf(o) && folder_flags)
    throw Error(ErrorKind::kUsage,
                "a GGUF file is quantised by --type, not by the flags of folders",
                "--type q8_0, --type q4_k_m; --to folder if a folder was meant");
  if (!is_gguf(o) && o.type)
    throw Error(ErrorKind::kUsage, "--type is for GGUF files",
                "--bits N quantises a folder; --to gguf if a file was meant");
  const bool quantizes = o.quantize || o.folder.bits != 0 || !o.folder.recipe.empty();
  if (!quantizes && o.folder.group_size != defaults.group_size)
    throw Error(ErrorKind::kUsage, "--group-size is of quantised weights", "--bits N quantises");
}

Conversion convert(const Options& o, const Watch& watch) {
  if (is_gguf(o)) {
    GgufOptions options{.overwrite = o.force, .check = !o.no_check, .threads = o.threads};
    if (o.type) options.type = *o.type;
    return export_gguf(model_path(o.input), o.output, options, watch);
  }
  FolderOptions options = o.folder;
  if (o.quantize && options.bits == 0 && options.recipe.empty()) options.bits = 4;
  options.overwrite = o.force;
  options.check = !o.no_check;
  options.threads = o.threads;
  return convert_folder(model_path(o.input), o.output, options, watch);
}

Json check_json(const ConversionCheck& check) {
  return {{"weight_error", check.weight_error},
          {"worst_tensor", check.worst_tensor},
          {"worst_tensor_error", check.worst_tensor_error},
          {"tokens", check.tokens},
          {"kld_mean", check.kld_mean},
          {"top1_agreement", check.top1_agreement},
          {"logit_error", check.logit_error},
          {"logit_error_limit", check.logit_error_limit}};
}

Json result_json(const Options& o, const Conversion& made, double seconds) {
  Json files = Json::array();
  for (const Conversion::File& file : made.files)
    files.push_back({{"name", file.name}, {"bytes", file.bytes}});
  Json json = {
      {"input", o.input}, {"output", o.output}, {"format", is_gguf(o) ? "gguf" : "folder"}};
  if (is_gguf(o)) {
    json["type"] = o.type.value_or("f16");
    json["vocabulary"] = made.placeholder_vocabulary ? "placeholder" : "tokenizer";
    json["substitutes"] = made.substitutes;
  }
  json["tensors"] = made.tensors;
  json["changed"] = made.changed;
  json["files"] = files;
  json["bytes"] = made.bytes;
  json["bits_per_weight"] = made.bits_per_weight;
  json["check"] = made.check ? check_json(*made.check) : Json(nullptr);
  json["memory_forecast_bytes"] = made.memory_forecast;
  json["peak_rss_bytes"] = peak_rss_bytes();
  json["seconds"] = seconds;
  return json;
}

void print_result(const Options& o, const Conversion& made, double seconds) {
  note(fmt::format("{}: {} tensors, {}, {:.2f} bits per weight, in {:.1f} s", o.output,
                   made.tensors, bytes_text(made.bytes), made.bits_per_weight, seconds));
  if (!made.substitutes.empty()) {
    std::vector<std::string> counts;
    for (const auto& [type, tensors] : made.substitutes)
      counts.push_back(fmt::format("{} as {}", tensors, type));
    note(fmt::format("tensors of widths that {}'s blocks do not divide: {}", *o.type,
                     fmt::join(counts, ", ")));
  }
  if (!made.check) return note("not checked");
  const ConversionCheck& check = *made.check;
  note(fmt::format("checked: weights differ by {:.3g} %, most in {} ({:.3g} %); {}",
                   100 * check.weight_error, check.worst_tensor, 100 * check.worst_tensor_error,
                   agreement_text(check)));
}

int run(const Options& o) {
  apply(o.verbosity);
  check_flags(o);
  const Interruption interruption;
  const Stopwatch clock;
  Conversion made;
  {
    ProgressBar bar("converting", o.verbosity);
    made = convert(o, Watch{bar.fn(), interruption.token()});
  }
  if (o.json)
    out_json(result_json(o, made, clock.seconds()));
  else if (!o.verbosity.quiet)
    print_result(o, made, clock.seconds());
  return kOk;
}

}  // namespace

void add_convert(Program& program) {
  add_verb<Options>(program, "convert", "Quantise a model, or write it in another format", setup,
                    run);
}

}  // namespace lapidary::cli
