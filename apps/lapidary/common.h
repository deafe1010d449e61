// What the verbs share: options, streams, interruption.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "lapidary/convert.h"
#include "lapidary/engine.h"
#include "lapidary/generate.h"
#include "lapidary/hub.h"
#include "lapidary/progress.h"

namespace lapidary::cli {

using Json = nlohmann::ordered_json;

constexpr int kOk = 0, kFailed = 1, kBadUsage = 2, kInterrupted = 130;

// What parsing the command line decides on; main() runs it afterwards.
struct Program {
  CLI::App app{"Run Gemma models, and look at what they do.", "lapidary"};
  std::function<int()> run;
};

// Throws Error{kUsage} for an option given to a verb before its second word, which would not count.
void refuse_options(const CLI::App& verb);

// A verb's options live in `O`, made here; run(options) is called when the verb was given. A verb
// with a `parent` is its second word: lapidary bench limits.
template <class O, class Setup, class Run>
CLI::App& add_verb(Program& program, const char* name, const char* summary, Setup setup, Run run,
                   CLI::App* parent = nullptr) {
  CLI::App* verb = (parent ? parent : &program.app)->add_subcommand(name, summary);
  auto options = std::make_shared<O>();
  setup(*verb, *options);
  verb->callback([&program, verb, options, run] {
    if (!verb->get_subcommands().empty()) return refuse_options(*verb);
    program.run = [options, run] { return run(*options); };
  });
  return *verb;
}

// ---- options

// Restricts an option to `choices`, which help and completion show.
CLI::Option* choices(CLI::Option* option, std::initializer_list<const char*> names);

// -q and -v, of every verb but those whose users know -q as something else.
struct Verbosity {
  bool quiet = false;
  bool verbose = false;
};
void add_verbosity(CLI::App& verb, Verbosity& verbosity);
// Installs the log sink that they ask for.
void apply(const Verbosity& verbosity);

struct ModelOptions {
  std::string model;
  std::string compute = "fast";
  std::string kv_type;
  int threads = 0;
  int threads_batch = 0;
  int64_t chunk = 0;
  int64_t context = 0;
  bool no_memory_check = false;
  std::vector<std::string> adapters;
};
// A size that people write as "2.5GiB", "512M" (powers of 1024) or "4GB" (of 1000).
CLI::Option* add_bytes(CLI::App& verb, const char* flags, int64_t& bytes, const char* help,
                       const char* group);
// -t of every verb that computes; 0, the default, is one per core.
void add_threads(CLI::App& verb, int& threads, const char* group);
void add_model(CLI::App& verb, ModelOptions& options);       // -m alone
void add_compute(CLI::App& verb, ModelOptions& options);     // -c, -t, and those of add_arithmetic
void add_arithmetic(CLI::App& verb, ModelOptions& options);  // --compute, --kv-type, ...
void add_adapters(CLI::App& verb, ModelOptions& options);    // --adapter
// "PATH:NUMBER", or a path that is there: 1 then. Throws Error{kUsage} naming `what`.
AdapterUse adapter_use(const std::string& text, const std::string& what);
// `model` if there is such a path or it cannot be a name of the hub, else the snapshot of that name
// in the hub's cache. The network is never asked. Throws Error{kInput} if it was never fetched.
std::filesystem::path model_path(const std::string& model);
// The folder that -m names or, without it, the built-in model's, said on stderr unless quiet.
std::filesystem::path model_folder(const ModelOptions& options, const Verbosity& verbosity);
EngineOptions engine_options(const ModelOptions& options);
// Throws Error{kInput} for a model that embeds texts and continues none.
std::shared_ptr<const Engine> load_engine(const ModelOptions& options, const Verbosity& verbosity);

// Flags of sampling; unset ones come from the model's generation_config.json.
struct SamplingFlags {
  std::optional<double> temp, top_p;
  std::optional<int> top_k;
  std::vector<std::string> logit_bias;
  SamplerOptions options;
};
void add_sampling(CLI::App& verb, SamplingFlags& flags);
// Throws Error{kUsage} for what is wrong with any model.
void check(const SamplingFlags& flags);
SamplerOptions resolve(const SamplingFlags& flags, const Engine& engine);

// Where a prompt comes from.
struct TextOptions {
  std::optional<std::string> prompt;  // -p, "-" for stdin
  std::string file;
  std::optional<std::string> ids;
  bool no_bos = false;
};
void add_text(CLI::App& verb, TextOptions& options, bool with_ids);
// What they say, read before a model is loaded: a mistake shows at once.
struct Input {
  std::optional<std::vector<Token>> ids = {};  // of --ids
  std::string text;                            // else
  bool bos = true;
};
// The text of -p, -f, or stdin when that is not a terminal. Throws Error{kUsage} for none.
Input read_input(const TextOptions& options);
// Ids as they are, or those of the text after <bos>.
std::vector<Token> tokens_of(const Input& input, const Engine& engine);
// "2,17, 5" or "2 17 5". `what` names the source in messages.
std::vector<Token> parse_ids(std::string_view text, const std::string& what);
std::string read_file(const std::filesystem::path& path);
std::string read_stdin();

// The name of a model of the hub in `text`. Throws Error{kUsage} when it is none.
HubName hub_name(const std::string& text);

// ---- output

// stdout cannot take any more because nobody reads it.
struct BrokenPipe {};

// Writes to stdout and flushes. Throws BrokenPipe, or Error{kResource} when it cannot be written.
void out(std::string_view text);
void out_json(const Json& json);   // on one line; bytes that are not UTF-8 become U+FFFD
void note(std::string_view text);  // a line to stderr
// `text` in a faint colour if stderr is a terminal and NO_COLOR is not set.
std::string dim(const std::string& text);
bool stderr_is_terminal();
bool stdout_takes_colour();  // a terminal, and NO_COLOR is not set
constexpr size_t kTerminalWidth = 80;
std::string bytes_text(int64_t bytes);   // "1.25 GiB"
std::string count_text(int64_t number);  // "1,234,567"

// A bar on stderr, if that is a terminal, for work that takes more than half a second. When its
// units are bytes it tells how many, and how fast they come.
class ProgressBar {
 public:
  enum class Unit { kSteps, kBytes };
  ProgressBar(std::string label, const Verbosity& verbosity, Unit unit = Unit::kSteps);
  ~ProgressBar();
  ProgressFn fn();
  void clear();  // before something else is printed; the next report draws it again

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// ---- interruption

// While one lives, Ctrl-C asks `token` to stop; a second Ctrl-C ends the program.
class Interruption {
 public:
  Interruption();
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;
  std::stop_token token() const { return source_.get_token(); }
  bool requested() const { return source_.stop_requested(); }

 private:
  std::stop_source source_;
  std::stop_source* outer_;
};
void install_signal_handlers();

Json timings_json(const Generation& made, double load_seconds);
// "12 tokens of prompt in 0.10 s (120.0/s), ..."
std::string timings_text(const Generation& made);
const char* name_of(FinishReason reason);
// "over 24 tokens KLD 0.01, ..." of a check that compared tokens
std::string agreement_text(const ConversionCheck& check);

}  // namespace lapidary::cli
