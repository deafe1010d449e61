// Other programs that run the same model, beside lapidary on the same machine in the same minute.
//
// A peer is a process that loads a model and then reads requests, one JSON object a line:
//   it writes {"load_s": 1.5} when the model is loaded;
//   it reads  {"ids": [2, 17, ...], "n": 64}
//   and writes {"ttft_s": 0.9, "decode_s": 2.1, "tokens": [...]}: n tokens made greedily after
//   those ids, end-of-text ignored; the seconds until the first, and those of the n - 1 others.
// It starts each request with an empty cache. What else it writes to stdout is skipped unless the
// line begins with '{'. It ends when its input does.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"

namespace lapidary {

struct PeerCommand {
  std::string name;     // "llama.cpp Q4_0"
  std::string command;  // one command of the shell
};

struct PeerOptions {
  int64_t prompt = 512;
  int64_t gen = 64;
  int repetitions = 3;
  double pause = 0.3;  // seconds before each run: the threads of the last one may still be spinning
};

struct PeerRun {
  double first_token_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
  std::vector<Token> tokens;
};

struct PeerResult {
  std::string name;
  double load_seconds = 0;
  int64_t peak_rss_bytes = 0;
  std::vector<PeerRun> runs = {};
};

// lapidary first. All models are loaded before the first run; after one that warms up, the programs
// take turns. Throws Error{kResource} that names the peer when one does not do what is said above.
std::vector<PeerResult> measure_peers(std::shared_ptr<const Engine> engine, double load_seconds,
                                      std::span<const PeerCommand> peers,
                                      const PeerOptions& options, const Watch& watch = {});

}  // namespace lapidary
