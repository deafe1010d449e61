// Which modules of a model are quantised how.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/quantization.h"

namespace lapidary {

// 12 of "model.layers.12.mlp.up_proj.weight"; -1 of what is in no layer.
int layer_of(std::string_view name);

// Layers of which the matrices that errors hurt most deserve more bits: the first and last eighth,
// and every third between.
bool deserves_more_bits(int layer, int layers);

class Recipe {
 public:
  // mlx_lm's mixed_2_6, mixed_3_4, mixed_3_6 and mixed_4_6.
  static std::vector<std::string> names();

  // Every module as `defaults` says.
  explicit Recipe(const AffineQuantization& defaults) : defaults_(defaults) {}

  // `name` is one of names(), else a JSON file: an object whose keys are patterns (* and ?) of
  // module paths, as "*.v_proj", and whose values are {"bits": N, "group_size": N}, either of which
  // may be left out, or false for dense. The first pattern that fits decides. Throws Error{kUsage}
  // when there is no such recipe or file, Error{kInput} naming file and field for what is wrong in
  // it.
  static Recipe load(const std::string& name, const AffineQuantization& defaults);

  // How each module is stored, nullopt: dense. `modules` are canonical paths (io/names.h). Throws
  // Error{kInput} naming a pattern that fits none.
  std::map<std::string, std::optional<AffineQuantization>> apply(
      const std::vector<std::string>& modules, int layers) const;

  const AffineQuantization& defaults() const { return defaults_; }

 private:
  struct Rule {
    std::string pattern;
    std::optional<AffineQuantization> storage;
  };

  static Recipe parse(const std::string& file, const AffineQuantization& defaults);

  AffineQuantization defaults_;
  int high_bits_ = 0;        // of a mixed recipe, whose low bits are the default; 0: not one
  std::vector<Rule> rules_;  // of a file
  std::string file_;
};

}  // namespace lapidary
