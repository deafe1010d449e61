// room: bench
// Which settings suit this machine, by measuring a model with each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lapidary/progress.h"

namespace lapidary {

struct TuneOptions {
  std::filesystem::path model;
  int rounds = 3;        // in which the values of a setting take turns
  int64_t prompt = 512;  // tokens of the prompts that are timed
  int64_t gen = 32;      // steps of decoding that are
  int64_t depth = 2048;  // positions before them, where the type of the cache matters
};

// A value of a setting, and how fast it was.
struct TuneValue {
  std::string value;
  std::vector<double> tokens_per_second = {};  // a sample per round; none if it was not measured
  bool allowed = true;                         // false: measured, and not to be chosen
  double median() const;                       // of the samples; 0 if there are none
};

struct TuneChoice {
  std::string setting;   // "isa", "threads", "threads_batch", "chunk" or "kv_type"
  std::string measured;  // "32 steps of decoding"
  std::vector<TuneValue> values = {};
  std::string chosen = {};
  std::string why = {};  // a sentence
};

// The least gain over what would be used without settings for which another value is chosen: less
// may be chance.
inline constexpr double kTuneGain = 0.03;

// Fills in `chosen` and `why`: the allowed value with the largest median, if it was faster than
// `usual` in every round, and by kTuneGain in the middle one; `usual` otherwise.
void choose(TuneChoice& choice, const std::string& usual);

// In this order: instruction set, threads to decode and for prompts, tokens of a prompt that go
// through the layers together, and the type of the cache; each with what was chosen before it.
// Throws as Engine::load, and Error{kInterrupted}.
std::vector<TuneChoice> tune(const TuneOptions& options, const Watch& watch = {});

}  // namespace lapidary
