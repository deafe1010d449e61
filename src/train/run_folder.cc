#include "train/run_folder.h"

#include <charconv>
#include <regex>
#include <set>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/system.h"
#include "io/output_file.h"
#include "io/printable.h"
#include "train/run_report.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// What may differ between a run and its resumption: it changes how the run goes on, not what it
// computes up to a step.
// The operands are the run's own: see TrainOptions::compute.
const std::set<std::string> kFree = {"threads",           "save_every", "eval_every",
                                     "checkpoint_layers", "max_memory", "operands",
                                     "track_memorization"};

std::string hex(uint64_t number) {
  return fmt::format("{:x}", number);
}

// What model and data are called wherever one stands. Data in memory has a name alone.
std::string place_of(const fs::path& path) {
  std::error_code error;
  const fs::path place = fs::canonical(path, error);
  return error ? path.string() : place.string();
}

void compare(const OrderedJson& before, const TrainOptions& options, const std::string& fingerprint,
             const fs::path& file) {
  std::vector<std::string> differences;
  const Json defaults = to_json(TrainOptions{});  // of what older runs did not have yet
  const std::string known = before.value("data_fingerprint", "");  // nor this
  const OrderedJson now = to_json(options);
  for (const auto& [key, value] : now.items()) {
    if (kFree.contains(key) || (key == "data" && known == fingerprint)) continue;
    Json was = before.contains(key) ? Json(before[key]) : defaults[key];
    if ((key == "data" || key == "model") && was.is_string())  // older runs have them as given
      was = place_of(was.get<std::string>());
    if (was != Json(value))
      differences.push_back(fmt::format("{}: {} then, {} now", key, was.dump(), value.dump()));
  }
  if (!differences.empty())
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: the run was begun with other options:{}", file.string(), differences),
        "resume with the same options, or begin another run");
  if (!known.empty() && known != fingerprint)
    fail("{}: the data is not what the run was begun with", options.data.string());
}

// Opens a file of records to append to, without those after `step`.
std::ofstream open_lines(const fs::path& file, int64_t step) {
  std::string kept;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_discarded() || json.value("step", step + 1) > step) break;
    kept += line + "\n";
  }
  in.close();
  write_file(file, kept);
  return std::ofstream(file, std::ios::app);
}

void add(const SetBlockLoss& loss, const std::string& prefix, OrderedJson& json) {
  json[prefix + "ntp_loss"] = loss.next;
  if (loss.masked) json[prefix + "matp_loss"] = *loss.masked;
  json[prefix + "masked_share"] = loss.masked_share;
}

// What of a line of metrics.jsonl is a curve of the event file.
constexpr const char* kCurves[] = {"loss",
                                   "lr",
                                   "grad_norm",
                                   "tokens_per_second",
                                   "peak_rss_bytes",
                                   "valid_loss",
                                   "memorized_bits",
                                   "valid_memorized_bits",
                                   "extraction_rate",
                                   "valid_extraction_rate",
                                   "membership_auc",
                                   "ntp_loss",
                                   "matp_loss",
                                   "masked_share",
                                   "block_size",
                                   "valid_ntp_loss",
                                   "valid_matp_loss"};

}  // namespace

OrderedJson to_json(const TrainOptions& o) {
  return {{"method", name_of(o.method)},
          {"objective", name_of(o.objective)},
          {"model", place_of(o.model)},
          {"data", place_of(o.data)},
          {"iterations", o.iterations},
          {"batch_size", o.batch_size},
          {"micro_batch", o.micro_batch},
          {"sequence_length", o.sequence_length},
          {"packing", o.packing},
          {"long_documents", o.long_documents},
          {"prompt_loss", o.prompt_loss},
          {"chat_completion", o.chat_completion},
          {"valid_fraction", o.valid_fraction},
          {"eval_every", o.eval_every},
          {"save_every", o.save_every},
          {"seed", o.seed},
          {"optimizer", o.optimizer},
          {"learning_rate", o.learning_rate},
          {"schedule", o.schedule},
          {"warmup", o.warmup},
          {"min_lr_ratio", o.min_lr_ratio},
          {"beta1", o.beta1},
          {"beta2", o.beta2},
          {"eps", o.eps},
          {"weight_decay", o.weight_decay},
          {"momentum", o.momentum},
          {"max_grad_norm", o.max_grad_norm},
          {"rank", o.rank},
          {"alpha", o.alpha},
          {"rslora", o.rslora},
          {"dora", o.dora},
          {"dropout", o.dropout},
          {"targets", o.targets},
          {"last_layers", o.last_layers},
          {"train_embeddings", o.train_embeddings},
          {"train_norms", o.train_norms},
          {"warm_start", o.warm_start},
          {"reset_every", o.reset_every},
          {"reset_warmup", o.reset_warmup},
          {"prune", o.prune},
          {"merge_every", o.merge_every},
          {"reset_optimizer", o.reset_optimizer},
          {"directions", name_of(o.directions)},
          {"mask_token", o.mask_token},
          {"block_min", o.block_min},
          {"block_max", o.block_max},
          {"rank_every", o.rank_every},
          {"track_memorization", o.track_memorization},
          {"operands", o.compute == Compute::kFast ? "bf16" : "f32"},
          {"threads", o.threads},
          {"checkpoint_layers", o.checkpoint_layers},
          {"max_memory", o.max_memory}};
}

OrderedJson to_json(const DataReport& data) {
  return {{"documents", data.documents},
          {"sequences", data.sequences},
          {"tokens", data.tokens},
          {"targets", data.targets},
          {"longest", data.longest},
          {"truncated", data.truncated},
          {"truncated_tokens", data.truncated_away},
          {"split", data.split},
          {"sequences_without_targets", data.without_targets}};
}

namespace {

uint64_t fingerprint_of(const JsonObject& state) {
  const std::string text = state.string("data_fingerprint");
  uint64_t fingerprint = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, fingerprint, 16);
  if (error != std::errc() || end != last)
    state.fail_field("data_fingerprint",
                     fmt::format("expected a hexadecimal number, found '{}'", printable(text)));
  return fingerprint;
}

fs::path config_to_resume(const fs::path& run) {
  const fs::path config = run / "config.json";
  if (!fs::exists(config)) fail("{}: there is no run to resume", run.string());
  return config;
}

}  // namespace

int64_t RunFolder::micro_batch(const fs::path& run) {
  const fs::path config = config_to_resume(run);
  const Json json = read_json_file(config);
  return JsonObject(json, config.string()).integer("micro_batch");
}

bool RunFolder::bf16(const fs::path& run) {
  const fs::path config = config_to_resume(run);
  const Json json = read_json_file(config);
  const JsonObject object(json, config.string());
  const std::string operands = object.string("operands", "f32");  // what older runs did not say
  if (operands != "bf16" && operands != "f32")
    object.fail_field("operands", fmt::format("expected bf16 or f32, found {}", operands));
  return operands == "bf16";
}

RunFolder::RunFolder(const TrainOptions& options, uint64_t data_fingerprint, const DataReport& data)
    : path_(options.run), ranked_(options.rank_every > 0) {
  if (options.resume) {
    const fs::path config = config_to_resume(path_);
    compare(read_ordered_json_file(config), options, hex(data_fingerprint), config);
    return;
  }
  const fs::path config = path_ / "config.json";
  const bool there = fs::exists(config);
  if (there)
    throw Error(ErrorKind::kInput, fmt::format("{}: holds a run already", path_.string()),
                "--resume goes on with it; else name another folder");
  std::error_code error;
  fs::create_directories(path_ / "state", error);
  if (error) fail_resource("{}: cannot create: {}", path_.string(), error.message());
  OrderedJson json = to_json(options);
  json["data_fingerprint"] = hex(data_fingerprint);
  if (data.documents > 0) json["data_report"] = to_json(data);
  write_file(config, json.dump(2) + "\n");
}

void RunFolder::clear_leftovers() const {
  remove_temporaries(path_);
  static const std::regex kState(R"(step-\d+\.safetensors)");
  const auto saved = position();
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_ / "state", ignored)) {
    const bool state = std::regex_match(entry.path().filename().string(), kState);
    if (state && !(saved && entry.path() == state_file(saved->step)))
      fs::remove(entry.path(), ignored);
  }
}

fs::path RunFolder::state_file(int64_t step) const {
  return path_ / "state" / fmt::format("step-{:08}.safetensors", step);
}

std::optional<RunPosition> RunFolder::position() const {
  const fs::path file = path_ / "state" / "state.json";
  if (!fs::exists(file)) return std::nullopt;
  const Json json = read_json_file(file);
  const JsonObject object(json, file.string());
  return RunPosition{.step = object.integer("step"),
                     .data = data_position(object.object("data")),
                     .tokens = object.integer("tokens"),
                     .seconds = object.number("seconds"),
                     .data_fingerprint = fingerprint_of(object)};
}

void RunFolder::restore(std::vector<StateArray> arrays) const {
  read_state(SafetensorsFile::open(state_file(position()->step)), arrays);
}

void RunFolder::save(const RunPosition& position, std::vector<StateArray> arrays) {
  const auto before = this->position();
  if (before && before->step == position.step) return;  // nothing happened since
  write_state(state_file(position.step), arrays);
  const Json json = {{"step", position.step},
                     {"data", to_json(position.data)},
                     {"tokens", position.tokens},
                     {"seconds", position.seconds},
                     {"data_fingerprint", hex(position.data_fingerprint)}};
  write_file(path_ / "state" / "state.json", json.dump(2) + "\n");
  if (before) {
    std::error_code ignored;
    fs::remove(state_file(before->step), ignored);
  }
}

void RunFolder::begin_metrics(int64_t step) {
  metrics_ = open_lines(path_ / "metrics.jsonl", step);
  if (ranked_) ranks_ = open_lines(path_ / "ranks.jsonl", step);
  events_.emplace(path_, step + 1);
}

void RunFolder::log(const TrainStep& s) {
  OrderedJson json = {{"step", s.step},
                      {"loss", s.loss},
                      {"lr", s.lr},
                      {"tokens_per_second", s.tokens_per_second},
                      {"grad_norm", s.grad_norm},
                      {"tokens", s.tokens},
                      {"peak_rss_bytes", peak_rss_bytes()}};
  if (s.set_block) {
    add(*s.set_block, "", json);
    json["block_size"] = s.block;
  }
  if (s.valid_loss) json["valid_loss"] = *s.valid_loss;
  if (s.valid_set_block) add(*s.valid_set_block, "valid_", json);
  if (s.memorization) {
    json["memorized_bits"] = s.memorization->bits;
    json["extraction_rate"] = s.memorization->extraction_rate;
  }
  if (s.memorization && s.memorization->auc) {
    json["valid_memorized_bits"] = *s.memorization->valid_bits;
    json["valid_extraction_rate"] = *s.memorization->valid_extraction_rate;
    json["membership_auc"] = *s.memorization->auc;
  }
  metrics_ << json.dump() << "\n";
  metrics_.flush();
  if (!metrics_) fail_resource("{}: cannot write", (path_ / "metrics.jsonl").string());
  std::vector<std::pair<std::string_view, double>> scalars;
  for (const char* key : kCurves)
    if (json.contains(key)) scalars.emplace_back(key, json[key].get<double>());
  events_->add(s.step, scalars);
}

namespace {

std::optional<SetBlockLoss> terms_of(const Json& line, const std::string& prefix) {
  if (!line.contains(prefix + "ntp_loss")) return std::nullopt;
  SetBlockLoss loss{.next = line.value(prefix + "ntp_loss", 0.0),
                    .masked_share = line.value(prefix + "masked_share", 0.0)};
  if (line.contains(prefix + "matp_loss")) loss.masked = line.value(prefix + "matp_loss", 0.0);
  return loss;
}

std::optional<double> number_of(const Json& line, const char* key) {
  return line.contains(key) ? std::optional(line.value(key, 0.0)) : std::nullopt;
}

}  // namespace

std::optional<TrainStep> RunFolder::last_step() const {
  std::string last;
  std::ifstream in(path_ / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) last = line;
  if (last.empty()) return std::nullopt;
  const Json json = parse_json(last, (path_ / "metrics.jsonl").string());
  TrainStep step{.step = json.value("step", int64_t{0}),
                 .loss = json.value("loss", 0.0),
                 .valid_loss = number_of(json, "valid_loss"),
                 .set_block = terms_of(json, ""),
                 .valid_set_block = terms_of(json, "valid_")};
  if (json.contains("memorized_bits"))
    step.memorization = {.bits = json.value("memorized_bits", 0.0),
                         .valid_bits = number_of(json, "valid_memorized_bits"),
                         .extraction_rate = json.value("extraction_rate", 0.0),
                         .valid_extraction_rate = number_of(json, "valid_extraction_rate"),
                         .auc = number_of(json, "membership_auc")};
  return step;
}

void RunFolder::log_ranks(std::span<const OrderedJson> lines) {
  for (const OrderedJson& line : lines) ranks_ << line.dump() << "\n";
  ranks_.flush();
  if (!ranks_) fail_resource("{}: cannot write", (path_ / "ranks.jsonl").string());
}

void RunFolder::write_report() const {
  write_file(path_ / "report.html", render(run_report(path_), ReportFormat::kHtml));
}

}  // namespace lapidary
