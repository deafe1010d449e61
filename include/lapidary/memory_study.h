// room: study
// What running and training a model take of memory: forecasts beside what the system counts.
// docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/kv_type.h"
#include "lapidary/progress.h"
#include "lapidary/train.h"

namespace lapidary {

// Bytes by what they are for; of a training, `kv_cache` is nothing, and of a generation neither
// `trained` nor `optimizer`.
struct MemoryParts {
  int64_t weights = 0;    // the model's files, mapped
  int64_t kv_cache = 0;   // keys and values
  int64_t trained = 0;    // f32 values and gradients of what is trained
  int64_t optimizer = 0;  // its state
  int64_t rest = 0;       // activations, logits, the tokenizer, the program
  int64_t total() const { return weights + kv_cache + trained + optimizer + rest; }
};

// A stretch of the work, and what there was at its end.
struct MemoryPhase {
  std::string name;  // "load", "prefill", "decode"; "before", "forward", "backward", "optimizer"
  double begin = 0;  // seconds since the first
  double end = 0;
  std::optional<MemoryParts> predicted = {};  // where there is a forecast for it
  MemoryParts measured = {};
  int64_t anonymous = 0;  // of the measured total: memory of the process's own, of no file
  int64_t peak = 0;       // the largest resident size while it lasted
};

// The process at one moment.
struct MemorySample {
  double seconds = 0;
  int64_t total = 0;      // resident size
  int64_t anonymous = 0;  // of it, of no file
  int64_t kv_cache = 0;   // of that, held by the cache, as the program counts it
};

struct LayerMemory {
  int layer = 0;
  bool sliding = false;
  int64_t weights = 0;         // of its matrices in the files
  int64_t weights_cached = 0;  // of them, in the system's page cache
  int64_t kv_predicted = 0;
  int64_t kv_cache = 0;  // of its blocks, in memory
};

// Keys and values of a full context, filled without the model.
struct KvGrowth {
  struct Point {
    int64_t context = 0;
    int64_t predicted = 0;
    int64_t measured = 0;  // in memory
  };
  KvType type = KvType::kBF16;
  std::vector<Point> points = {};
};

// What the process has of its own as the layers of the first training step go by: when one begins
// its forward pass, and when it is done with its backward pass. Later steps use that memory again.
struct LayerActivations {
  int layer = 0;
  int64_t forward = 0;
  int64_t backward = 0;
};

struct GenerationMemory {
  int64_t prompt = 0;
  int64_t generated = 0;
  KvType kv_type = KvType::kBF16;
  std::vector<MemoryPhase> phases = {};
  std::vector<MemorySample> timeline = {};
  std::vector<LayerMemory> layers = {};
};

struct TrainingMemory {
  TrainMemory forecast = {};
  int64_t steps = 0;
  std::vector<MemoryPhase> phases = {};     // of the first step, and "later steps" as one
  std::vector<MemorySample> timeline = {};  // of all steps
  std::vector<LayerActivations> layers = {};
};

struct MemoryStudy {
  // Of the model's files: bytes in the system's page cache before and after; nothing where it does
  // not tell (base/process_memory.h).
  int64_t file_bytes = 0;
  std::optional<int64_t> cached_before = {};
  std::optional<int64_t> cached_after = {};
  bool peaks_by_phase = true;  // false: the system does not restart them; they are of the process
  GenerationMemory generation = {};
  std::vector<KvGrowth> growth = {};
  std::optional<TrainingMemory> training = {};
};

struct MemoryOptions {
  std::filesystem::path model;
  EngineOptions engine = {};
  int64_t prompt = 512;    // tokens, which mean nothing
  int64_t generated = 64;  // after them
  int64_t context = 0;     // the longest of the growth; 0: 8192, or what the model was made for
  std::vector<KvType> kv_types = {KvType::kF32, KvType::kBF16, KvType::kQ8, KvType::kQ4};
  // Also train this, with `model`, where given; a step in one micro-batch.
  std::optional<TrainOptions> training = {};
};

// Loads the model, reads the prompt, goes on greedily, fills caches of every type, and trains.
// Throws as Engine::load, Session::append and train() do; Error{kResource} where the system does
// not say what is in memory.
MemoryStudy study_memory(const MemoryOptions& options, const Watch& watch = {});

}  // namespace lapidary
