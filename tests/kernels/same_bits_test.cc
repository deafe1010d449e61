// The vector tables of different machines against each other: no machine has AVX2 and NEON, so each
// compares hashes of its results with the same constants.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cases.h"

namespace lapidary {
namespace {

// FNV-1a, a value at a time.
class Hash {
 public:
  void add(const std::vector<float>& values) {
    for (const float x : values) add(std::bit_cast<uint32_t>(x));
  }
  void add(const std::vector<int8_t>& values) {
    for (const int8_t x : values) add(static_cast<uint8_t>(x));
  }
  std::string hex() const {
    std::string digits;
    for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[state_ >> shift & 15];
    return digits;
  }

 private:
  void add(uint32_t bits) { state_ = (state_ ^ bits) * 0x100000001b3u; }

  uint64_t state_ = 0xcbf29ce484222325u;
};

// Expects that what `compute` adds to the hash is the same by every vector table of this machine,
// and what it was where the constant was made.
template <class Compute>
void expect_by_every_table(const std::string& expected, Compute&& compute) {
  for (const Kernels* table : tables_under_test()) {
    if (table->isa == "ref") continue;
    Hash hash;
    compute(*table, hash);
    EXPECT_EQ(hash.hex(), expected) << table->isa;
  }
}

TEST(SameBits, Matmul) {
  expect_by_every_table("3988cf2ab8538541", [](const Kernels& kernels, Hash& hash) {
    for (const TestMatrix& m : all_formats(5))
      hash.add(product(kernels, m.view, random_floats(m.view.cols, 2).data(), 1, 5));
  });
}

TEST(SameBits, QuantizedMatmul) {
  expect_by_every_table("42a2d0b6e6958823", [](const Kernels& kernels, Hash& hash) {
    for (const int64_t tokens : {2, 21})  // by rows and by panels, of which tiles take 16 at once
      for (const TestMatrix& m : quantized_formats(17)) {
        const Rounded x(kernels, m.view, random_floats(tokens * m.view.cols, 2).data(), tokens);
        hash.add(x.codes);
        hash.add(x.steps);
        hash.add(x.sums);
        hash.add(quantized_product(kernels, m.view, x.view, 17));
      }
  });
}

TEST(SameBits, DequantizeRow) {
  expect_by_every_table("d30f8eceaed1d7aa", [](const Kernels& kernels, Hash& hash) {
    for (const TestMatrix& m : all_formats(3)) {
      std::vector<float> row(static_cast<size_t>(m.view.cols));
      kernels.dequantize_row(m.view, 2, row.data());
      hash.add(row);
    }
  });
}

TEST(SameBits, NormAndPointwiseFunctions) {
  expect_by_every_table("523504367f848c26", [](const Kernels& kernels, Hash& hash) {
    constexpr int64_t n = 2013;
    const auto weight = random_floats(n, 2);
    std::vector<float> normed(n), gate = random_floats(n, 3, 9), capped = random_floats(n, 4, 90);
    // min and max decide what becomes of these, and instruction sets differ in what theirs do.
    for (const float special : {NAN, INFINITY, -INFINITY, -0.0f}) capped.push_back(special);
    kernels.rms_norm(random_floats(n, 1, 3).data(), weight.data(), 1e-6f, n, normed.data());
    kernels.gelu_mul(gate.data(), weight.data(), n);
    kernels.softcap(capped.data(), std::ssize(capped), 30);
    for (const auto& values : {normed, gate, capped}) hash.add(values);
  });
}

TEST(SameBits, SoftmaxAndGeluMulBackward) {
  expect_by_every_table("8b324bbbe3c1dc32", [](const Kernels& kernels, Hash& hash) {
    constexpr int64_t n = 5003;
    auto p = random_floats(n, 1, 4), d_gate = random_floats(n, 2), d_up = random_floats(n, 3);
    kernels.softmax(p.data(), n);
    kernels.gelu_mul_backward(random_floats(n, 4, 3).data(), random_floats(n, 5).data(),
                              d_gate.data(), d_up.data(), n);
    for (const auto& values : {p, d_gate, d_up}) hash.add(values);
  });
}

// Of AMX and the model of its tiles, and of vdpbf16ps and its model.
TEST(SameBits, GemmBf16) {
  for (const Kernels* table : tables_under_test(&Kernels::gemm_bf16)) {
    if (table->isa == "ref") continue;
    constexpr int64_t kRows = 45, kCols = 70, kDepth = 203;
    const auto a = random_floats(kRows * kDepth, 1), b = random_floats(kCols * kDepth, 2);
    std::vector<float> c = random_floats(kRows * kCols, 3);
    bf16_product(*table, a, b, kRows, kCols, kDepth, c, kCols, true);
    Hash hash;
    hash.add(c);
    EXPECT_EQ(hash.hex(),
              table->isa.starts_with("avx512") ? "442bdc32cc17c068" : "b4fe86bd8f1c14bd")
        << table->isa;
  }
}

TEST(SameBits, Attend) {
  expect_by_every_table("a1a1bff84dea972d", [](const Kernels& kernels, Hash& hash) {
    for (const KvType type : kKvTypes)
      for (const float softcap : {0.0f, 5.0f}) {
        const AttentionCase c(48, type, softcap, 600);
        hash.add(c.run(kernels, 0, kAttendRows));
        hash.add(c.run_in_pieces(kernels, 0, kAttendRows));
      }
  });
}

}  // namespace
}  // namespace lapidary
