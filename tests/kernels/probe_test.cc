#include "kernels/probe.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/aligned_vector.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace lapidary {
namespace {

// Every line of every row is read, once: the sum is the exclusive or of all words.
TEST(Probe, ReadStreamsReadsEveryByteOfItsRows) {
  constexpr int64_t kStride = 192, kCount = 128;  // bytes; the last line of a row is not asked for
  AlignedVector<uint64_t> memory(8 * kStride / 8);
  const CounterRng rng(5);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = rng.bits(i);
  for (const int streams : {1, 2, 4, 8})
    for (const int64_t ahead : {0, 64}) {
      uint64_t expected = 0;
      for (int row = 0; row < streams; ++row)
        for (size_t i = 0; i < kCount / 8; ++i)
          expected ^= memory[static_cast<size_t>(row) * kStride / 8 + i];
      EXPECT_EQ(read_streams(reinterpret_cast<const std::byte*>(memory.data()), kStride, kCount,
                             streams, ahead),
                expected)
          << streams << " streams";
    }
}

TEST(Probe, NamesAreUniqueAndSupportedProbesRun) {
  std::set<std::string> names;
  for (const ComputeProbe& probe : compute_probes()) {
    EXPECT_TRUE(names.insert(std::string(probe.name)).second) << probe.name;
    EXPECT_EQ(find_compute_probe(probe.name), &probe);
    EXPECT_GT(probe.ops, 0);
    if (probe.supported) probe.run(10);
  }
  EXPECT_EQ(find_compute_probe("abacus"), nullptr);
}

TEST(Probe, EveryVectorTableOfThisMachineHasProbesOfFloatsAndOfIntegers) {
  for (const Kernels* table : supported_kernels()) {
    if (table->isa == "ref") continue;
    std::set<std::string_view> units;
    for (const ComputeProbe& probe : compute_probes())
      if (probe.supported && probe.isa == table->isa) units.insert(probe.unit);
    EXPECT_EQ(units, (std::set<std::string_view>{"FLOP", "OP"})) << table->isa;
  }
}

}  // namespace
}  // namespace lapidary
