// Where the figures of other packages are read from: the golden files, or with
// LAPIDARY_METRICS_GOLDEN another folder that tools/make_metrics_golden.py wrote.
#pragma once

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "base/json.h"

namespace lapidary {

inline Json metrics_golden(const char* name) {
  const char* folder = std::getenv("LAPIDARY_METRICS_GOLDEN");
  const std::filesystem::path golden =
      folder ? folder : std::string(LAPIDARY_SOURCE_DIR) + "/tests/golden/metrics";
  return read_json_file(golden / name);
}

// Written so that NaN does not pass.
inline ::testing::AssertionResult within(double value, double expected, double bound) {
  if (std::abs(value - expected) <= bound) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << value << ", expected " << expected << ", off by " << value - expected;
}

}  // namespace lapidary
