// The weights of attention on disk, whole: blocks.N.attn.hook_pattern as others name and shape it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lapidary/config.h"

#include "io/safetensors.h"
#include "study/attention_patterns.h"

namespace lapidary {

// A safetensors file with a tensor of f32 [heads, tokens, tokens] for each chosen layer. Memory:
// the chosen heads' rows of a chunk.
class PatternFile {
 public:
  // Of no layers or heads: all. Throws Error{kUsage} for one that is not there or comes twice,
  // Error{kResource} when the file cannot be created or the disk has no room for it.
  PatternFile(const std::filesystem::path& path, const Config& config, std::vector<int> layers,
              std::vector<int> heads, int64_t tokens, Metadata metadata);

  // A block of any layer; different slots may come from several threads at once.
  void take(const PatternBlock& block, size_t slot);
  // Writes what was taken of a layer's chunk.
  void write(int layer, size_t slots);
  // The file takes its name; all queries must have been written.
  void finish() { writer_.finish(); }

 private:
  struct Rows {
    int64_t first = 0, count = 0;
    std::vector<float> weights;  // [heads, count, tokens]
  };
  const std::vector<int> layers_, heads_;
  const int64_t tokens_;
  SafetensorsWriter writer_;
  std::vector<Rows> slots_;
};

}  // namespace lapidary
