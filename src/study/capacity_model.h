// The models that studies of capacity train from random weights, and how much data they are given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace lapidary {

// Throws Error{kUsage} for no sizes, one given twice, loads out of range or not in order.
void check_amounts(const std::vector<int64_t>& sizes, const std::vector<double>& loads);

// Sequences, all of whose tokens but the first are predicted, of about `load` bits of entropy per
// parameter if their tokens were uniform over the vocabulary; at least one.
int64_t sequences_of_load(double load, int64_t parameters, int64_t length, int vocabulary);

// capacity_shape() with random weights in f32, where there is no model yet.
void make_capacity_model(int64_t size, int vocabulary, int layers, uint64_t seed,
                         const std::filesystem::path& folder);

}  // namespace lapidary
