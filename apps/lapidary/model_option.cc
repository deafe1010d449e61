// -m and how a model is loaded.
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "base/fail.h"
#include "common.h"
#include "gemma/load.h"
#include "settings.h"

namespace lapidary::cli {

namespace fs = std::filesystem;

namespace {

// A check that help does not spell out. What is no number is said by the conversion to one.
CLI::Validator thread_count() {
  return CLI::Validator(
      [](std::string& text) {
        int count = 0;
        const char* last = text.data() + text.size();
        const auto [end, error] = std::from_chars(text.data(), last, count);
        const bool number = end == last && error != std::errc::invalid_argument;
        const bool in_range = error == std::errc() && count >= 0 && count <= kMostThreads;
        if (!number || in_range) return std::string();
        return fmt::format("{} given, expected 0 to {}", text, kMostThreads);
      },
      "");
}

}  // namespace

void add_model(CLI::App& verb, ModelOptions& o) {
  verb.add_option(
          "-m,--model", o.model,
          "A model's folder, a GGUF file, or the name of one that lapidary pull has fetched: "
          "google/gemma-3-1b-it (default: the built-in model)")
      ->type_name("MODEL")
      ->envname("LAPIDARY_MODEL")
      ->group("Model");
}

void add_threads(CLI::App& verb, int& threads, const char* group) {
  verb.add_option("-t,--threads", threads,
                  "Threads (default, and 0: as lapidary tune found, else one per physical core)")
      ->type_name("N")
      ->envname("LAPIDARY_THREADS")
      ->check(thread_count())
      ->group(group);
  add_settings(verb);
}

void add_compute(CLI::App& verb, ModelOptions& o) {
  verb.add_option("-c,--context", o.context,
                  "Positions of the context (default: what the model was made for)")
      ->type_name("N")
      ->check(CLI::Validator(
          [](std::string& text) {
            return text.starts_with("-") ? text.append(" is negative") : std::string();
          },
          ""))
      ->group("Model");
  add_threads(verb, o.threads, "Model");
  verb.add_option("--threads-batch", o.threads_batch,
                  "Threads for prompts (default: as -t); -tb is the same")
      ->type_name("N")
      ->check(thread_count())
      ->group("Model");
  add_arithmetic(verb, o);
  add_adapters(verb, o);
}

void add_adapters(CLI::App& verb, ModelOptions& o) {
  verb.add_option("--adapter", o.adapters,
                  "A low-rank adapter to add to the model, and how much of it (1): PEFT's or "
                  "MLX-LM's folder, or a GGUF file; repeatable")
      ->type_name("PATH[:SCALE]")
      ->allow_extra_args(false)
      ->group("Model");
}

AdapterUse adapter_use(const std::string& text, const std::string& what) {
  std::error_code error;
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || fs::exists(text, error)) return {text, 1};
  double strength = 0;
  const char* last = text.data() + text.size();
  const auto [end, fault] = std::from_chars(text.data() + colon + 1, last, strength);
  if (fault != std::errc() || end != last || !std::isfinite(strength) || colon == 0)
    fail_usage("{}: '{}' given, expected PATH or PATH:NUMBER", what, text);
  return {text.substr(0, colon), strength};
}

void add_arithmetic(CLI::App& verb, ModelOptions& o) {
  choices(verb.add_option("--compute", o.compute,
                          "fast: as fast as the stated error allows (default); exact: f32 "
                          "throughout, to compare with")
              ->envname("LAPIDARY_COMPUTE")
              ->group("Model"),
          {"exact", "fast"});
  choices(verb.add_option("--kv-type", o.kv_type,
                          "Type of the K/V cache (default: bf16 when fast, f32 when exact)")
              ->group("Model"),
          {"f32", "bf16", "q8", "q4"});
  verb.add_option("--chunk", o.chunk,
                  "Tokens of a prompt that go through the layers together (default: up to 512)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{8192}).description(""))
      ->group("Model");
  verb.add_flag("--no-memory-check", o.no_memory_check,
                "Load even what is forecast not to fit the memory")
      ->group("Model");
}

namespace {

fs::path built_in_model() {
  std::vector<fs::path> places;
  if (const char* models = std::getenv("LAPIDARY_MODELS"))
    places.push_back(fs::path(models) / "tiny");
  std::error_code error;
  const fs::path bin = fs::read_symlink("/proc/self/exe", error).parent_path();
  places.push_back(bin / "../../models/tiny");              // a build folder
  places.push_back(bin / "../share/lapidary/models/tiny");  // an installation
  for (const fs::path& place : places)
    if (fs::exists(place / "config.json")) return fs::weakly_canonical(place);
  throw Error(ErrorKind::kInput, "the built-in model was not found",
              "give a model with -m, or set LAPIDARY_MODELS to the folder that has 'tiny'");
}

}  // namespace

HubName hub_name(const std::string& text) {
  if (auto name = parse_hub_name(text)) return *name;
  throw Error(ErrorKind::kUsage, fmt::format("'{}' is not the name of a model of the hub", text),
              "expected ORG/NAME or ORG/NAME@REVISION, as in google/gemma-3-1b-it");
}

fs::path model_path(const std::string& model) {
  std::error_code error;
  const auto name = parse_hub_name(model);
  if (fs::exists(model, error) || !name || name->repo.find('/') == std::string::npos) return model;
  const fs::path cache = hub_cache_folder();
  if (const auto snapshot = find_snapshot(cache, *name)) return *snapshot;
  throw Error(
      ErrorKind::kInput,
      fmt::format("{}: no such folder, and no such model in the cache {}", model, cache.string()),
      "lapidary pull " + model + " fetches it, if the hub has it");
}

fs::path model_folder(const ModelOptions& o, const Verbosity& verbosity) {
  if (!o.model.empty()) return model_path(o.model);
  const fs::path folder = built_in_model();
  if (!verbosity.quiet) note("lapidary: no -m given, using the built-in model " + folder.string());
  return folder;
}

EngineOptions engine_options(const ModelOptions& o) {
  EngineOptions options;
  const Settings& tuned = settings();
  options.compute = o.compute == "exact" ? Compute::kExact : Compute::kFast;
  if (!o.kv_type.empty())
    options.kv_type = kv_type_named(o.kv_type);
  else if (options.compute == Compute::kFast)  // exact means f32
    options.kv_type = kv_type_named(tuned.kv_type);
  options.threads = o.threads != 0 ? o.threads : tuned.threads;
  options.threads_batch =
      o.threads_batch != 0 || o.threads != 0 ? o.threads_batch : tuned.threads_batch;
  options.chunk = o.chunk > 0 ? o.chunk : tuned.chunk;
  options.context = o.context;
  options.check_memory = !o.no_memory_check;
  for (const std::string& adapter : o.adapters)
    options.adapters.push_back(adapter_use(adapter, "--adapter"));
  return options;
}

std::shared_ptr<const Engine> load_engine(const ModelOptions& o, const Verbosity& verbosity) {
  auto engine = Engine::load(model_folder(o, verbosity), engine_options(o));
  check_generates(engine->config(), engine->folder());
  return engine;
}

}  // namespace lapidary::cli
