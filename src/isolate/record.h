// What a run writes down: a line of JSON for each output and each context.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <nlohmann/json.hpp>

#include "lapidary/token.h"

namespace lapidary {

// Where an output or a context belongs: example, condition, and its name there.
using RecordKey = std::tuple<std::string, std::string, std::string>;

// Seconds are counted from the beginning of the run, pauses between its sittings left out.
struct ContextRecord {
  std::string example, condition, name;
  int64_t tokens = 0;
  int64_t prefilled = 0;  // of them, computed here, as often as they were
  int64_t restored = 0;   // of them, read from a file
  int64_t bytes = 0;      // of keys and values
  double begin = 0, end = 0;

  RecordKey key() const { return {example, condition, name}; }
};

struct OutputRecord {
  std::string example, condition, name;
  std::string cluster = {};
  std::string context = {};  // the name of the one it goes on from
  uint64_t seed = 0;
  int64_t prompt_tokens = 0;  // after the context
  int64_t reused_tokens = 0;  // of the context, found in a cache
  std::vector<Token> tokens = {};
  std::string text = {};
  std::string finish_reason = {};  // "stop" or "length"
  double begin = 0, end = 0;
  double seconds = 0;  // its share of the steps it took part in

  RecordKey key() const { return {example, condition, name}; }
};

// What the model says of an output that is there.
struct MeasureRecord {
  std::string example, condition, name;
  std::map<std::string, double> measures = {};

  RecordKey key() const { return {example, condition, name}; }
};

// What a judge said of two conditions' answers to one prompt.
struct JudgementRecord {
  enum class Verdict { kFirst, kSecond, kTie, kInvalid };  // kInvalid: it said none

  std::string model;            // of the judge
  std::string example, output;  // the output's name
  std::string first, second;    // conditions, in the order in which it was shown them
  Verdict verdict = Verdict::kInvalid;
  std::string reason = {};

  using Key = std::tuple<std::string, std::string, std::string, std::string, std::string>;
  Key key() const { return {model, example, output, first, second}; }
};

nlohmann::ordered_json to_json(const ContextRecord& record);
nlohmann::ordered_json to_json(const OutputRecord& record);
nlohmann::ordered_json to_json(const MeasureRecord& record);
nlohmann::ordered_json to_json(const JudgementRecord& record);
// Throw Error{kInput} naming `where`.
ContextRecord context_record(const nlohmann::json& json, const std::string& where);
MeasureRecord measure_record(const nlohmann::json& json, const std::string& where);
JudgementRecord judgement_record(const nlohmann::json& json, const std::string& where);
OutputRecord output_record(const nlohmann::json& json, const std::string& where);

}  // namespace lapidary
