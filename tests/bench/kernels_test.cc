#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "bench/kernel_cases.h"
#include "bench/meter.h"

namespace lapidary {
namespace {

// Names of the operations of which some case finds the table wrong; of all of them, or of one.
std::set<std::string> found_wrong(const Kernels& kernels, const std::string& only = "") {
  Executor definition(*supported_kernels().front(), 1), table(kernels, 1);
  std::set<std::string> wrong;
  for (const KernelCase& c : kernel_cases(kernels, 1))
    if ((only.empty() || c.op == only) && !check_kernel(c, definition, table).correct)
      wrong.insert(c.op);
  return wrong;
}

TEST(BenchKernels, TablesOfThisMachineAreCorrect) {
  for (const Kernels* kernels : supported_kernels())
    EXPECT_EQ(found_wrong(*kernels), std::set<std::string>()) << kernels->isa;
}

// Every entry of the table is checked: of one that does nothing the cases are found wrong.
TEST(BenchKernels, AnEntryThatDoesNothingIsFoundWrong) {
  const auto expect_wrong = [](const std::string& op, auto change) {
    Kernels kernels = *supported_kernels().front();
    change(kernels);
    EXPECT_EQ(found_wrong(kernels, op), std::set<std::string>{op});
  };
  expect_wrong("matmul", [](Kernels& k) { k.matmul = [](const MatmulArgs&) {}; });
  expect_wrong("quantize", [](Kernels& k) { k.quantize = [](const QuantizeArgs&) {}; });
  expect_wrong("quantized_matmul",
               [](Kernels& k) { k.quantized_matmul = [](const QuantizedMatmulArgs&) {}; });
  expect_wrong("dequantize_row", [](Kernels& k) {
    k.dequantize = [](const WeightMatrix&, int64_t, int64_t, int64_t, float*) {};
  });
  expect_wrong("rms_norm", [](Kernels& k) {
    k.rms_norm = [](const float*, const float*, float, int64_t, float*) {};
  });
  expect_wrong("gelu_mul", [](Kernels& k) { k.gelu_mul = [](float*, const float*, int64_t) {}; });
  expect_wrong("softcap", [](Kernels& k) { k.softcap = [](float*, int64_t, float) {}; });
  expect_wrong("attend", [](Kernels& k) { k.attend = [](const AttendArgs&) {}; });
  expect_wrong("merge_attention", [](Kernels& k) {
    k.merge_attention = [](const float*, int64_t, int64_t, int, float*) {};
  });
  expect_wrong("gemm", [](Kernels& k) { k.gemm = [](const GemmArgs&) {}; });
  expect_wrong("pack_bf16", [](Kernels& k) { k.pack_bf16 = [](const Bf16PackArgs&) {}; });
  expect_wrong("gemm_bf16", [](Kernels& k) { k.gemm_bf16 = [](const Bf16GemmArgs&) {}; });
  expect_wrong("softmax", [](Kernels& k) { k.softmax = [](float*, int64_t) { return 0.0; }; });
  expect_wrong("gelu_mul_backward", [](Kernels& k) {
    k.gelu_mul_backward = [](const float*, const float*, float*, float*, int64_t) {};
  });
  constexpr size_t kEntriesAbove = 14, kSizes = 2;
  static_assert(sizeof(Kernels) == sizeof(std::string_view) + kSizes * sizeof(int) +
                                       kEntriesAbove * sizeof(void (*)()),
                "a new entry needs a case in kernel_cases.cc and a line above");
}

TEST(BenchKernels, SmallDifferencesCount) {
  // One value of many, by as little as its last 14 bits.
  Kernels kernels = *supported_kernels().front();
  kernels.softcap = [](float* x, int64_t n, float cap) {
    supported_kernels().front()->softcap(x, n, cap);
    x[0] *= 1.01f;
  };
  EXPECT_EQ(found_wrong(kernels, "softcap"), std::set<std::string>{"softcap"});
}

TEST(BenchKernels, TheFilterChoosesRowsOfEachTable) {
  std::vector<KernelResult> results;
  const auto keep = [&](const KernelResult& r) { results.push_back(r); };
  measure_kernels({.threads = 1, .seconds = 0.001, .filter = "rms_norm", .limits = false}, keep);
  ASSERT_EQ(results.size(), supported_kernels().size());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].isa, supported_kernels()[i]->isa);
    EXPECT_EQ(results[i].op, "rms_norm");
    EXPECT_TRUE(results[i].correct);
    EXPECT_GT(results[i].seconds, 0);
    EXPECT_EQ(results[i].ceiling.name, "");
  }
  results.clear();
  measure_kernels({.threads = 1, .filter = "abacus"}, keep);
  EXPECT_TRUE(results.empty());
}

TEST(BenchKernels, ACeilingIsThatOfTheTablesUnit) {
  const std::string isa(supported_kernels().back()->isa);
  std::vector<KernelResult> results;
  measure_kernels({.threads = 1,
                   .seconds = 0.001,
                   .filter = isa + " matmul 4-bit, 6912 x 1152, 8 tokens",
                   .memory = 1 << 20},
                  [&](const KernelResult& r) { results.push_back(r); });
  ASSERT_EQ(results.size(), 1u);
  const ComputeProbe* unit = units_of(isa).floats;  // memory is far from being the limit here
  if (unit != nullptr) {
    EXPECT_EQ(results[0].ceiling.name, unit->name);
  }
  EXPECT_GT(results[0].ceiling.value, 0);
  EXPECT_GT(results[0].ceiling.tokens_per_second, 0);
}

TEST(BenchKernels, AStopRequestEndsIt) {
  std::stop_source stop;
  int results = 0;
  const auto stop_after_one = [&](const KernelResult&) {
    ++results;
    stop.request_stop();
  };
  EXPECT_THROW(measure_kernels({.threads = 1, .seconds = 0.001, .limits = false}, stop_after_one,
                               Watch{{}, stop.get_token()}),
               Error);
  EXPECT_EQ(results, 1);
}

}  // namespace
}  // namespace lapidary
