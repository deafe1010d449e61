// Means of values along a text, with what is known of their error.
#pragma once

#include <span>

#include "lapidary/eval.h"

namespace lapidary {

// The mean with its standard error from blocks of sqrt(n) neighbours (batch means), which holds
// where values that are near each other in the text are alike, in one window or across two.
Estimate estimate(std::span<const double> values);

// e^x: its error is that of x times the value.
Estimate exponential(const Estimate& x);

}  // namespace lapidary
