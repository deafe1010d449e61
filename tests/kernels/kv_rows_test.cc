#include "kernels/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lapidary {
namespace {

std::vector<float> through(const std::vector<float>& values, KvType type) {
  const int dim = static_cast<int>(values.size());
  std::vector<std::byte> row(static_cast<size_t>(kv_row_bytes(type, dim)), std::byte{0xaa});
  store_kv_row(values.data(), dim, type, row.data());
  std::vector<float> out;
  for (int i = 0; i < dim; ++i) out.push_back(kv_value(row.data(), dim, type, i));
  return out;
}

TEST(KvRows, ValuesAreWithinHalfAStepOfWhatWasStored) {
  for (const KvType type : kKvTypes)
    for (const int dim : {16, 32, 48, 256})
      for (const float offset : {0.0f, 3.0f, -100.0f}) {
        std::vector<float> values;
        const CounterRng rng(3, static_cast<uint64_t>(dim));
        for (int i = 0; i < dim; ++i)
          values.push_back(rng.normal(static_cast<uint64_t>(i)) * (i < 32 ? 1.0f : 50.0f) + offset);
        const auto got = through(values, type);
        for (int i = 0; i < dim; ++i) {
          const int first = i / kKvGroup * kKvGroup, last = std::min(dim, first + kKvGroup);
          const auto [least, largest] =
              std::minmax_element(values.begin() + first, values.begin() + last);
          const double x = values[static_cast<size_t>(i)];
          double bound = 0;
          if (type == KvType::kBF16) bound = std::abs(x) * 0x1p-8;
          if (code_bits(type) > 0) {
            // The bias lies up to 2^-7 of itself (and a little) lower, the step is as much wider;
            // and some f32 roundings of the largest of them.
            const double outward = 1.01 * 0x1p-7, bias = std::abs(*least) * outward,
                         levels = (1 << code_bits(type)) - 1;
            bound = 0.5 * (*largest - *least + bias) / levels * (1 + outward) +
                    0x1p-22 * (std::abs(*least) + std::abs(*largest));
          }
          ASSERT_LE(std::abs(got[static_cast<size_t>(i)] - x), bound)
              << name_of(type) << " dim " << dim << " offset " << offset << " at " << i;
        }
      }
}

TEST(KvRows, ARowOfOneValueAndOneThatIsNoNumberAreStored) {
  for (const KvType type : {KvType::kQ8, KvType::kQ4}) {
    for (const float got : through(std::vector<float>(48, 0.0f), type)) EXPECT_EQ(got, 0);
    for (const float got : through(std::vector<float>(48, 5.0f), type)) EXPECT_NEAR(got, 5, 0.02);
    through(std::vector<float>(48, NAN),
            type);  // whatever comes of it, without undefined behaviour
  }
}

TEST(KvRows, BytesAreThoseOfTheTable) {
  EXPECT_EQ(kv_row_bytes(KvType::kF32, 256), 1024);
  EXPECT_EQ(kv_row_bytes(KvType::kBF16, 256), 512);
  EXPECT_EQ(kv_row_bytes(KvType::kQ8, 256), 288);
  EXPECT_EQ(kv_row_bytes(KvType::kQ4, 256), 160);
  EXPECT_EQ(kv_row_bytes(KvType::kQ4, 48), 32);
  for (const KvType type : kKvTypes) EXPECT_EQ(kv_type_named(name_of(type)), type);
  EXPECT_FALSE(kv_type_named("q5"));
}

}  // namespace
}  // namespace lapidary
