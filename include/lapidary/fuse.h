// room: generate
// Adapters made part of a model's weights.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lapidary/convert.h"
#include "lapidary/engine.h"
#include "lapidary/progress.h"

namespace lapidary {

struct FuseOptions {
  std::vector<AdapterUse> adapters = {};
  bool dequantize = false;  // write dense weights; else each matrix is stored as it was
  bool overwrite = false;   // replace a model that is there already
  bool check = true;
  int threads = 0;  // 0: one per core this process may use; the bytes do not depend on it
};

// What became of the update of a matrix. Norms are those of Frobenius.
struct FusedMatrix {
  std::string name;
  double update = 0;  // the update's norm, as a share of the matrix's
  double lost = 0;    // the norm of stored - (matrix + update), as a share of the update's
};

struct Fusion {
  Conversion conversion;
  std::vector<FusedMatrix> matrices = {};  // that an adapter changes; empty when not checked
  double update = 0, lost = 0;             // of all of them together
};

// Writes the model of a folder, or of a GGUF file, with the adapters added to its matrices:
// decoded, added, and stored as before: in its own type, or quantised anew with the same bits and
// groups. All other tensors keep their bytes. The result is checked as that of convert_folder is,
// against the model that adds the adapters at run time, and must differ from the model without
// them.
//
// Throws Error{kUsage} for no adapters, or a GGUF file of quantised weights and no `dequantize`;
// Error{kInput} for what Engine::load refuses, when `out` is there already, when the check fails,
// or when storing the result rounds the whole update away; Error{kResource}, Error{kInterrupted}.
Fusion fuse(const std::filesystem::path& model, const std::filesystem::path& out,
            const FuseOptions& options, const Watch& watch = {});

}  // namespace lapidary
