// lapidary bench peers: other programs that run the same model, beside lapidary.
#include <fmt/format.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/peers.h"
#include "bench_options.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  OutputOptions output;
  PeerOptions peers;
  std::vector<std::string> commands;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("--peer", o.commands,
                  "Another program: a name, and a command of the shell that starts it; repeatable")
      ->type_name("NAME=COMMAND")
      ->allow_extra_args(false)
      ->group("Measuring");
  verb.add_option("-p,--n-prompt", o.peers.prompt, "Tokens of the prompt (512)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 24))
      ->group("Measuring");
  verb.add_option("-n,--n-gen", o.peers.gen, "Tokens to make (64)")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 24))
      ->group("Measuring");
  verb.add_option("-r,--repetitions", o.peers.repetitions, "Runs of each, in turn (3)")
      ->type_name("N")
      ->check(between(1, 1000))
      ->group("Measuring");
  add_threads(verb, o.model.threads, "Measuring");
  add_output(verb, o.output);
  add_model(verb, o.model);
  add_arithmetic(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "make bench-peers installs llama.cpp, transformers and mlx-lm and compares with them. What "
      "a peer reads and writes is said in docs/performance.md.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench peers -m /tmp/1b --peer \"mlx=python3 tools/peers/mlx.py /tmp/1b\"");
}

std::vector<PeerCommand> parse_peers(const std::vector<std::string>& texts) {
  std::vector<PeerCommand> peers;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      fail_usage("--peer: '{}' given, expected NAME=COMMAND", text);
    peers.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  return peers;
}

int run(const Options& o) {
  apply(o.verbosity);
  const std::vector<PeerCommand> commands = parse_peers(o.commands);
  const Stopwatch load_clock;
  const auto engine = load_engine(o.model, o.verbosity);
  const double load_seconds = load_clock.seconds();
  PageFile page(o.output.html);
  const Interruption interruption;
  std::vector<PeerResult> results;
  {
    ProgressBar bar("measuring", o.verbosity);
    results = measure_peers(engine, load_seconds, commands, o.peers,
                            Watch{bar.fn(), interruption.token()});
  }
  put(peers_report(this_host(), describe_model(*engine), o.peers, results), o.output, page);
  return kOk;
}

}  // namespace

void add_bench_peers(Program& program, CLI::App& bench) {
  add_verb<Options>(program, "peers", "Compare with other programs that run the same model", setup,
                    run, &bench);
}

}  // namespace lapidary::cli
