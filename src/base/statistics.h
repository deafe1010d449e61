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

}  // namespace lapidary
