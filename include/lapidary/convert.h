// room: generate
// Models in other formats: quantised, dequantised, of another type, or as a file for llama.cpp.
//
// Both conversions hold a few rows of weights in memory at a time, and both end with a check: what
// was written is read again, its weights are compared with the source's, and the same tokens go
// through both models. A result that fails is not put in place.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lapidary/progress.h"

namespace lapidary {

// How the result compares with the source.
struct ConversionCheck {
  double weight_error = 0;  // root mean square of the differences, as a share of the weights'
  std::string worst_tensor = {};
  double worst_tensor_error = 0;

  int64_t tokens = 0;   // that went through both models in f32
  double kld_mean = 0;  // Kullback-Leibler divergence of the result from the source, nats per token
  double top1_agreement = 0;     // share of positions with the same likeliest token
  double logit_error = 0;        // root mean square of the differences, as a share of the spread
  double logit_error_limit = 0;  // that the weights' error explains; a larger one is an Error
};

struct Conversion {
  struct File {
    std::string name;  // in the folder; of a single file its own
    int64_t bytes = 0;
  };
  std::vector<File> files = {};         // by name
  int64_t bytes = 0;                    // of all files
  int64_t tensors = 0;                  // that the source has, quantised ones counted once
  int64_t changed = 0;                  // of them, those that are stored in another way now
  double bits_per_weight = 0;           // of all tensors' weights
  int64_t memory_forecast = 0;          // bytes, besides pages of the files
  bool placeholder_vocabulary = false;  // the folder has no tokenizer, and a GGUF file must
  // Of a GGUF file: tensors whose width the blocks of the type do not divide, by what they are
  // stored as instead.
  std::map<std::string, int64_t> substitutes = {};
  std::optional<ConversionCheck> check = {};
};

struct FolderOptions {
  int bits = 0;             // 0: do not quantise; else MLX affine 2, 3, 4, 5, 6 or 8
  int group_size = 64;      // 32, 64 or 128
  std::string recipe = {};  // some modules otherwise: one of recipe_names(), or a JSON file
  bool dequantize = false;  // write dense weights
  std::string dtype = {};   // "bf16", "f16" or "f32", of dense weights or of scales and biases;
                            // empty: the source's
  bool overwrite = false;   // replace a model that is there already
  bool check = true;
  int threads = 0;  // 0: one per core this process may use; the bytes do not depend on it
  int64_t shard_bytes = 5'000'000'000;  // of tensors in a file, at most
};

// "mixed_2_6", ...: those of mlx_lm. A file's format is in docs/formats.md.
std::vector<std::string> recipe_names();

// Writes the model of a folder into another one: the weights, config.json with only what they
// change changed, and every other file that belongs to the model, with a note in README.md on where
// it came from. The images' part of a multimodal model is kept, and is never quantised. Codes are
// bit for bit those of MLX. `out` is there whole or not at all.
//
// `in` may be a GGUF file too, of which the folder has what it says: weights under HF's names,
// dense unless `bits` are given, in the type of the embedding or bf16 where that is quantised
// unless `dtype` is given; the configuration, a tokenizer.model, the end tokens and the chat
// template.
//
// Throws Error{kUsage} for options that cannot be; Error{kInput} for what Engine::load refuses,
// when nothing would change, when `out` is there already and `overwrite` was not asked for, or when
// the check fails; Error{kResource} when memory or disk do not do; Error{kInterrupted} on a stop
// request.
Conversion convert_folder(const std::filesystem::path& in, const std::filesystem::path& out,
                          const FolderOptions& options, const Watch& watch = {});

// "f32", ...: the types of GgufOptions.
std::vector<std::string> gguf_types();

struct GgufOptions {
  // Of matrices: "f32", "f16", "bf16", "q8_0", "q6_k", "q4_k_m" (q4_k, and q6_k where errors hurt
  // most), "q4_k" or "q4_0"; norms are f32. Where 256 does not divide a width, q5_0 stands for
  // q4_k and q8_0 for q6_k, as llama.cpp's quantiser has it; where 32 does not, f16.
  std::string type = "f16";
  bool overwrite = false;
  bool check = true;
  int threads = 0;  // 0: one per core this process may use; the bytes do not depend on it
};

// Writes the model of a folder, and its tokenizer, as one GGUF file that llama.cpp runs. Throws as
// convert_folder, and Error{kInput} naming the field or tensor that the format or llama.cpp has no
// place for.
Conversion export_gguf(const std::filesystem::path& folder, const std::filesystem::path& file,
                       const GgufOptions& options, const Watch& watch = {});

}  // namespace lapidary
