// room: generate
// Checkpoints of real shapes with random weights, for tests and benchmarks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lapidary/config.h"
#include "lapidary/progress.h"

namespace lapidary {

// "gemma-3-1b", ...: the released sizes, smallest generation first.
std::vector<std::string> preset_names();
// Throws Error{kUsage} listing the presets.
Config preset(const std::string& name);

// Sizes to use in place of a preset's; layers follow the family's pattern of kinds.
struct ShapeOverrides {
  std::optional<int> layers = {}, hidden = {}, ffn = {}, heads = {}, kv_heads = {}, head_dim = {},
                     vocab = {}, window = {};
};
// Throws Error{kUsage} naming the size that cannot be.
Config with_overrides(Config config, const ShapeOverrides& overrides);

struct SynthOptions {
  int bits = 0;  // 0: dense; else MLX affine 2, 3, 4, 5, 6 or 8
  int group_size = 64;
  std::string dtype = "bf16";  // or "f16", "f32": of dense weights, or of scales and biases
  uint64_t seed = 0;
  int threads = 0;  // 0: one per core this process may use; the bytes do not depend on it
};

// Makes `folder`, and those above it, with config.json, generation_config.json and
// model.safetensors; it is there whole or not at all, and if there before, must be empty. The same
// config, options and seed give the same bytes. Weights are nearly normal with HF's initial
// standard deviation of 0.02; norms vary a little around theirs. No tokenizer: use --ids. Throws
// Error{kUsage} for options that cannot be, Error{kInput} when there is something in it,
// Error{kResource} when the disk does not do and Error{kInterrupted} on a stop request; nothing is
// left behind then.
void synthesize(const Config& config, const SynthOptions& options,
                const std::filesystem::path& folder, const Watch& watch = {});

}  // namespace lapidary
