#include "common.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/log.h"

#include "base/fail.h"

namespace lapidary::cli {

CLI::Option* choices(CLI::Option* option, std::initializer_list<const char*> names) {
  const std::vector<std::string> allowed(names.begin(), names.end());
  const CLI::Validator one_of(
      [allowed](std::string& value) {
        for (const std::string& name : allowed)
          if (name == value) return std::string();
        return fmt::format("'{}' given, expected one of {}", value, fmt::join(allowed, ", "));
      },
      "");
  return option->type_name(fmt::format("{}", fmt::join(allowed, "|")))->check(one_of);
}

void refuse_options(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    const char* variable =
        option->get_envname().empty() ? nullptr : std::getenv(option->get_envname().c_str());
    if (option->count() > 0 && !variable)
      fail_usage("{}: goes after '{}'", option->get_name(),
                 verb.get_subcommands().front()->get_name());
  }
}

void add_verbosity(CLI::App& verb, Verbosity& verbosity) {
  auto* quiet = verb.add_flag("-q,--quiet", verbosity.quiet, "Say nothing but results and errors");
  auto* verbose = verb.add_flag("-v,--verbose", verbosity.verbose, "Say more on stderr");
  quiet->group("General");
  verbose->group("General")->excludes(quiet);
}

void apply(const Verbosity& verbosity) {
  const LogLevel least = verbosity.verbose ? LogLevel::kDebug
                         : verbosity.quiet ? LogLevel::kWarning
                                           : LogLevel::kInfo;
  set_log_sink([least](LogLevel level, std::string_view message) {
    if (level < least) return;
    note(fmt::format("lapidary: {}{}", level == LogLevel::kWarning ? "warning: " : "", message));
  });
}

void add_sampling(CLI::App& verb, SamplingFlags& f) {
  SamplerOptions& o = f.options;
  const auto group = [](CLI::Option* option) { option->group("Sampling"); };
  group(verb.add_option("--temp", f.temp, "Temperature; 0 takes the likeliest token (1.0)")
            ->type_name("T"));
  group(verb.add_option("--top-k", f.top_k, "Keep the K likeliest; 0: all (64)")->type_name("K"));
  group(verb.add_option("--top-p", f.top_p,
                        "Keep the likeliest up to a share of P; 1: all (0.95). These three come "
                        "from the model's generation_config.json if it has them")
            ->type_name("P"));
  group(
      verb.add_option("--min-p", o.min_p, "Drop what is less likely than P times the likeliest (0)")
          ->type_name("P"));
  group(verb.add_option("--repeat-penalty", o.repetition_penalty,
                        "Divide the logits of recent tokens by X (1: none)")
            ->type_name("X"));
  group(verb.add_option("--frequency-penalty", o.frequency_penalty,
                        "Lower them by X for each time they occurred (0)")
            ->type_name("X"));
  group(verb.add_option("--presence-penalty", o.presence_penalty,
                        "Lower them by X if they occurred (0)")
            ->type_name("X"));
  group(verb.add_option("--repeat-last-n", o.penalty_window,
                        "Recent means the last N tokens; -1: all (64)")
            ->type_name("N"));
  group(verb.add_option("--logit-bias", f.logit_bias,
                        "Raise or lower the logit of a token: 15043+2.5, 108-100; repeatable")
            ->type_name("ID+X")
            ->allow_extra_args(false));
  group(
      verb.add_option("--seed", o.seed, "The same seed draws the same tokens (0)")->type_name("N"));
}

namespace {

// "15043+2.5" or "108-100"
std::pair<Token, float> parse_bias(const std::string& text) {
  const size_t sign = text.find_first_of("+-");
  try {
    size_t id_end = 0, value_end = 0;
    const int id = std::stoi(text, &id_end);
    const float value = std::stof(text.substr(sign), &value_end);
    if (sign > 0 && id_end == sign && sign + value_end == text.size()) return {id, value};
  } catch (const std::exception&) {  // not numbers, or out of range: said below
  }
  fail_usage("--logit-bias: '{}' given, expected a token id, + or -, and a number, as in 108-100",
             text);
}

}  // namespace

namespace {

SamplerOptions with_defaults(const SamplingFlags& flags, const GenerationConfig& model) {
  SamplerOptions o = flags.options;
  o.temperature = flags.temp.value_or(model.temperature.value_or(1.0));
  o.top_k = flags.top_k.value_or(model.top_k.value_or(64));
  o.top_p = flags.top_p.value_or(model.top_p.value_or(0.95));
  for (const std::string& text : flags.logit_bias) {
    const auto [id, bias] = parse_bias(text);
    o.logit_bias[id] += bias;
  }
  return o;
}

}  // namespace

void check(const SamplingFlags& flags) {
  check_sampler_options(with_defaults(flags, {}), std::numeric_limits<int>::max());
}

SamplerOptions resolve(const SamplingFlags& flags, const Engine& engine) {
  const SamplerOptions o = with_defaults(flags, engine.generation_config());
  check_sampler_options(o, engine.config().vocab_size);
  return o;
}

void add_text(CLI::App& verb, TextOptions& o, bool with_ids) {
  auto* prompt = verb.add_option("-p,--prompt", o.prompt,
                                 "The text itself; - or nothing at all: from standard input");
  auto* file = verb.add_option("-f,--file", o.file, "A file with the text; -: standard input");
  prompt->type_name("TEXT")->group("Input");
  file->type_name("FILE")->group("Input")->excludes(prompt);
  if (with_ids) {
    auto* ids = verb.add_option("--ids", o.ids, "Token ids instead of text, taken as they are");
    ids->type_name("2,17,..")->group("Input")->excludes(prompt)->excludes(file);
  }
  verb.add_flag("--no-bos", o.no_bos, "Do not put <bos> before the text")->group("Input");
}

std::string read_file(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) fail("{}: is a folder", path.string());
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("{}: cannot open: {}", path.string(), std::strerror(errno));
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) fail("{}: cannot read", path.string());
  return text;
}

std::string read_stdin() {
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) throw Error(ErrorKind::kInterrupted, "interrupted");
    if (n < 0) fail("standard input: cannot read: {}", std::strerror(errno));
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

Input read_input(const TextOptions& o) {
  Input input;
  input.bos = !o.no_bos;
  if (o.ids) {
    if (o.no_bos) fail_usage("--no-bos: ids are taken as they are, nothing is put before them");
    input.ids = parse_ids(*o.ids, "--ids");
    if (input.ids->empty()) fail_usage("--ids: no ids given");
  } else if (o.prompt && *o.prompt != "-") {
    input.text = *o.prompt;
  } else if (!o.file.empty() && o.file != "-") {
    input.text = read_file(o.file);
  } else if (!o.prompt && o.file.empty() && ::isatty(STDIN_FILENO)) {
    throw Error(ErrorKind::kUsage, "no text given", "use -p TEXT, -f FILE, or a pipe");
  } else {
    input.text = read_stdin();
  }
  return input;
}

std::vector<Token> tokens_of(const Input& input, const Engine& engine) {
  if (input.ids) return *input.ids;
  std::vector<Token> ids = engine.tokenizer().encode(input.text);
  if (input.bos) ids.insert(ids.begin(), engine.tokenizer().bos());
  return ids;
}

std::vector<Token> parse_ids(std::string_view text, const std::string& what) {
  std::vector<Token> ids;
  for (size_t i = 0; i < text.size();) {
    const size_t start = text.find_first_not_of(", \t\r\n", i);
    if (start == std::string_view::npos) break;
    i = std::min(text.find_first_of(", \t\r\n", start), text.size());
    const std::string word(text.substr(start, i - start));
    const bool digits = word.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || word.size() > 9) fail_usage("{}: '{}' is not a token id", what, word);
    ids.push_back(std::stoi(word));
  }
  return ids;
}

void out(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  if (errno == EPIPE) throw BrokenPipe();
  fail_resource("standard output: cannot write: {}", std::strerror(errno));
}

void out_json(const Json& json) {
  out(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void note(std::string_view text) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

bool stderr_is_terminal() {
  return ::isatty(STDERR_FILENO) != 0;
}

namespace {

bool wants_colour() {
  const char* no_color = std::getenv("NO_COLOR");
  return !no_color || !*no_color;
}

}  // namespace

bool stdout_takes_colour() {
  return ::isatty(STDOUT_FILENO) != 0 && wants_colour();
}

std::string dim(const std::string& text) {
  if (!stderr_is_terminal() || !wants_colour()) return text;
  return "\033[2m" + text + "\033[0m";
}

namespace {

// Turns a size into digits. Returns what is wrong with it, or nothing.
std::string to_bytes(std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [unit_begin, error] = std::from_chars(text.data(), end, number);
  const std::string unit(unit_begin, end);
  const std::string wrong = "'" + text + "' is no size, as 2.5GiB, 512M or 4GB";
  if (error != std::errc() || !(number >= 0)) return wrong;
  double scale = 1;
  if (!unit.empty() && unit != "B") {
    const auto power = std::string_view("KMGT").find(static_cast<char>(std::toupper(unit[0])));
    const std::string rest = unit.substr(1);
    if (power == std::string_view::npos || (rest != "" && rest != "iB" && rest != "B"))
      return wrong;
    scale = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  if (number * scale > 0x1p62) return wrong;
  text = std::to_string(static_cast<int64_t>(number * scale));
  return {};
}

}  // namespace

CLI::Option* add_bytes(CLI::App& verb, const char* flags, int64_t& bytes, const char* help,
                       const char* group) {
  return verb.add_option(flags, bytes, help)
      ->type_name("SIZE")
      ->group(group)
      ->transform(CLI::Validator(to_bytes, ""));
}

std::string bytes_text(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < int64_t{1} << 20) return fmt::format("{:.1f} KiB", value / 1024);
  if (bytes < int64_t{1} << 30) return fmt::format("{:.1f} MiB", value / (1 << 20));
  return fmt::format("{:.2f} GiB", value / (1 << 30));
}

std::string count_text(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto i = std::ssize(digits) - 3; i > 0; i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

namespace {

// ", 3:20 left", of work that is worth to be waited for elsewhere.
std::string left_text(double seconds) {
  constexpr double kWorthSaying = 10;
  const auto whole = static_cast<int64_t>(seconds);
  const std::string text =
      whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                   : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return (seconds < kWorthSaying ? "" : ", " + text + " left") + "\033[K";
}

}  // namespace

struct ProgressBar::State {
  std::string label;
  Unit unit;
  bool shown = false;
  int64_t first_done = -1;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point next =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
};

ProgressBar::ProgressBar(std::string label, const Verbosity& verbosity, Unit unit) {
  if (!stderr_is_terminal() || verbosity.quiet) return;
  state_ = std::make_shared<State>();
  state_->label = std::move(label);
  state_->unit = unit;
}

ProgressBar::~ProgressBar() {
  clear();
}

void ProgressBar::clear() {
  if (!state_ || !state_->shown) return;
  std::fprintf(stderr, "\r\033[K");
  state_->shown = false;
}

ProgressFn ProgressBar::fn() {
  if (!state_) return {};
  return [state = state_](int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (state->first_done < 0) state->first_done = done;
    if (total <= 0 || now < state->next) return;
    state->next = now + std::chrono::milliseconds(100);
    state->shown = true;
    const size_t width = state->unit == Unit::kBytes ? 20 : 40;
    const auto share = static_cast<double>(done) / static_cast<double>(total);
    const auto filled =
        static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
    const double seconds = std::chrono::duration<double>(now - state->start).count();
    const double speed = static_cast<double>(done - state->first_done) / seconds;
    std::string amount;
    if (state->unit == Unit::kBytes)
      amount = fmt::format(" of {}, {}/s\033[K", bytes_text(total),
                           bytes_text(static_cast<int64_t>(speed)));
    else if (speed > 0)
      amount = left_text(static_cast<double>(total - done) / speed);
    std::fprintf(stderr, "\r%s [%s%s] %3.0f %%%s", state->label.c_str(),
                 std::string(filled, '#').c_str(), std::string(width - filled, '.').c_str(),
                 100 * share, amount.c_str());
  };
}

namespace {

std::atomic<std::stop_source*> active_source{nullptr};

// A stop_source without callbacks is a few lock-free atomics, which a handler may use.
void on_interrupt(int) {
  std::stop_source* source = active_source.load();
  if (!source || !source->request_stop()) ::_exit(kInterrupted);
}

}  // namespace

Interruption::Interruption() : outer_(active_source.exchange(&source_)) {}
Interruption::~Interruption() {
  active_source.store(outer_);
}

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: a read in progress returns
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // out() sees it
  std::signal(SIGXFSZ, SIG_IGN);  // and so does whoever writes more than ulimit -f allows
}

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

Json timings_json(const Generation& made, double load_seconds) {
  return {{"load_s", load_seconds},
          {"prefill_s", made.prefill_seconds},
          {"prefill_tokens_per_second", made.prefill_tokens_per_second()},
          {"decode_tokens_per_second", made.decode_tokens_per_second()},
          {"ttft_s", made.first_token_seconds}};
}

std::string timings_text(const Generation& made) {
  std::string cached;
  if (made.cached_tokens > 0) cached = fmt::format(", {} of them cached", made.cached_tokens);
  std::string passes;  // where one did not make one token
  if (made.forward_passes + 1 != std::ssize(made.tokens) && made.forward_passes > 0)
    passes = fmt::format(" by {} passes", made.forward_passes);
  return fmt::format(
      "prompt {} tokens{} in {:.2f} s ({:.1f}/s); made {}{} in {:.2f} s ({:.1f}/s); {}",
      made.prompt_tokens, cached, made.prefill_seconds, made.prefill_tokens_per_second(),
      made.tokens.size(), passes, made.decode_seconds, made.decode_tokens_per_second(),
      made.finish_reason == FinishReason::kLength ? "length reached" : name_of(made.finish_reason));
}

std::string agreement_text(const ConversionCheck& check) {
  return fmt::format("over {} tokens KLD {:.3g}, the same likeliest token {:.0f} %", check.tokens,
                     check.kld_mean, 100 * check.top1_agreement);
}

}  // namespace lapidary::cli
