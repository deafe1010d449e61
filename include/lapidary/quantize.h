// room: quantize
// Quantising with a look at what the weights are for: scales that put the precision where
// activations are large, and bits where errors change the answer. docs/quality.md has the method.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lapidary/convert.h"
#include "lapidary/eval.h"
#include "lapidary/progress.h"

namespace lapidary {

enum class QuantizeMethod {
  kRtn,  // round to nearest: the bytes of convert_folder
  kAwq,  // scale channels by how large their activations are, then search scale and bias of groups
};

struct QuantizeOptions {
  QuantizeMethod method = QuantizeMethod::kAwq;
  int bits = 4;                // of every matrix; with a budget, those the scales are chosen for
  int group_size = 64;         // 32, 64 or 128
  double bits_per_weight = 0;  // a budget for each matrix to get bits of its own from; 0: none
  std::string text = {};       // to calibrate on; kRtn without a budget needs none
  int64_t calibration_tokens = 4096;  // at most: of the text, in windows of 256
  uint64_t seed = 0;                  // chooses windows where the text has more
  bool overwrite = false;
  bool check = true;  // as FolderOptions
  int threads = 0;    // 0: one per core this process may use; the bytes do not depend on it
};

struct QuantizedModule {
  std::string path;  // "model.layers.0.mlp.up_proj"
  int bits = 0;
  double exponent = 0;  // of the activations' magnitude in the scales of its columns
  // Squared error of the outputs on the sample, as a share of their squares: as written, and if it
  // had been rounded to nearest at those bits. Of the embedding: of the weights. 0: not measured.
  double error = 0;
  double rtn_error = 0;
  double kld = 0;  // of the model with this alone at `bits` of the options; 0: not measured
};

struct Quantization {
  Conversion conversion = {};
  std::vector<QuantizedModule> modules = {};
  int64_t calibration_tokens = 0;  // that were used
};

// Writes the dense model of a folder quantised into another folder, as convert_folder does and with
// its check. Memory holds one layer at a time, and the residual stream of the calibration tokens.
//
// Throws as convert_folder; Error{kUsage} for a budget that the model cannot have, naming those it
// can; Error{kInput} for a folder that is quantised already and a text without tokens.
Quantization quantize_folder(const std::filesystem::path& in, const std::filesystem::path& out,
                             const QuantizeOptions& options, const Watch& watch = {});

// ---- what formats cost

struct FormatReportOptions {
  // "rtn-4", "awq-3": a method and its bits, or a budget, as in "awq-4.25"; "q4_k_m": a type of
  // GGUF.
  std::vector<std::string> formats = {"rtn-8", "rtn-6", "rtn-5", "rtn-4",
                                      "rtn-3", "awq-4", "awq-3"};
  QuantizeOptions quantize = {};  // of all of them; method, bits and budget are the formats'
  QualityOptions quality = {};
  std::filesystem::path keep = {};  // where the models are left, by their format's name; empty: no
};

// Makes the dense model of a folder in one format after another and measures each: a row for the
// source, which the others are compared with, and one for each format with its name as the model.
// Without `keep` one model is on the disk at a time, in the system's folder for temporary files.
//
// Throws as quantize_folder, export_gguf and quality_table do, Error{kUsage} for formats that
// cannot be.
void format_report(const std::filesystem::path& in, const FormatReportOptions& options,
                   const std::function<EvalText(const Engine&)>& text_of,
                   const std::function<void(const QualityRow&)>& on_row, const Watch& watch = {});

}  // namespace lapidary
