#include "base/float16.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace lapidary {
namespace {

TEST(Float16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_float16(value))));
    } else {
      EXPECT_EQ(to_float16(value).bits, bits) << value;
    }
  }
}

TEST(Float16, RoundsToNearestEven) {
  EXPECT_EQ(to_float(to_float16(2049.0f)), 2048.0f);  // halfway, to even
  EXPECT_EQ(to_float(to_float16(2051.0f)), 2052.0f);
  EXPECT_EQ(to_float(to_float16(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(to_float(to_float16(65520.0f))));
  EXPECT_EQ(to_float(to_float16(0x1p-25f)), 0.0f);        // halfway to the least subnormal
  EXPECT_EQ(to_float(to_float16(0x1.8p-24f)), 0x1p-23f);  // halfway, to even
}

TEST(BFloat16, RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(to_float(to_bfloat16(1.0f + 0x1p-8f)), 1.0f);  // halfway, to even
  EXPECT_EQ(to_float(to_bfloat16(1.0f + 0x1.8p-7f)), 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(to_float(to_bfloat16(std::numeric_limits<float>::max()))));
}

}  // namespace
}  // namespace lapidary
