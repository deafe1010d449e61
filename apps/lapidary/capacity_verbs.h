// What the verbs share that train many small models to see what they hold.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "lapidary/capacity_study.h"

#include "common.h"
#include "report/report.h"

namespace lapidary::cli {

// --length, of at least so many, --batch-size, --optimizer, --learning-rate, --weight-decay,
// --seed.
void add_recipe(CLI::App& verb, CapacityRecipe& recipe, int64_t length);

// --sizes, --layers of models from random weights.
void add_models(CLI::App& verb, std::vector<int64_t>& sizes, int& layers);

// --steps, of at least so many.
void add_steps(CLI::App& verb, int64_t& steps, int64_t least);

// A folder that a study goes on in, and --json.
struct GoingOn {
  std::string folder;
  bool json = false;
};
void add_going_on(CLI::App& verb, GoingOn& output);
// Writes the figures under `name` and the page, and prints the figures or the summary.
void write_going_on(const GoingOn& output, const char* name, const Json& figures,
                    const Report& report, const std::string& summary);

}  // namespace lapidary::cli
