// What is said of a few repeated measurements.
#pragma once

#include <span>

namespace lapidary {

double mean(std::span<const double> values);
// Of a sample: divided by n - 1; 0 of a single value.
double standard_deviation(std::span<const double> values);
double median(std::span<const double> values);
// Of values in ascending order: what a share `q` of them lies below, between two of them in
// proportion (numpy's default).
double quantile(std::span<const double> sorted, double q);

// Root mean square of the difference over that of what is expected; not a number if either has one
// or their sizes differ.
double relative_error(std::span<const float> got, std::span<const float> expected);

}  // namespace lapidary
