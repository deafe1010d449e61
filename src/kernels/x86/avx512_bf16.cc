// Products of bf16 by vdpbf16ps, which adds the product of the odd and then of the even value of a
// pair to a sum in f32, each rounded: a sum is one chain over all k. As with the tiles of AMX,
// subnormal numbers count as 0, and become 0.
#include <cstring>
#include <immintrin.h>

#include "kernels/simd/bf16_tiles.h"
#include "kernels/x86/tables.h"

namespace lapidary::avx512 {
namespace {

struct Bf16Dots {
  static void configure() {}
  static void release() {}

  static void block(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                    bool add) {
    part(a, b, depth, c, stride, add, kBf16Panel, kBf16Panel);
  }
  // An adapter's columns are often 16.
  static void part(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                   bool add, int64_t row_count, int64_t col_count) {
    const auto left = [a](int64_t row) { return a + bf16_position(Bf16Operand::kRows, row, 0); };
    if (col_count <= kBf16Tile) {
      for (int64_t row = 0; row < row_count; row += 16)
        rows<16, 1>(left(row), b, depth, c + row * stride, stride, add);
    } else {
      for (int64_t row = 0; row < row_count; row += 8)
        rows<8, 2>(left(row), b, depth, c + row * stride, stride, add);
    }
  }

 private:
  // 16 sums, and what they are of: kVectors pairs of columns, a pair of a row.
  template <int kRows, int kVectors>
  static void rows(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                   bool add) {
    __m512 sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        sums[r][v] = add ? _mm512_loadu_ps(c + r * stride + 16 * v) : _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += kBf16Step, a += 2 * kBf16TileSize, b += 2 * kBf16TileSize)
      for (int pair = 0; pair < kBf16Step / 2; ++pair) {
        __m512bh cols[kVectors];
        for (int v = 0; v < kVectors; ++v)
          cols[v] = columns(b + v * kBf16TileSize + 2 * kBf16Tile * pair);
        for (int r = 0; r < kRows; ++r) {
          const __m512bh x = broadcast(a + r * kBf16Step + 2 * pair);
          for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, cols[v]);
        }
      }
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(c + r * stride + 16 * v, sums[r][v]);
  }

  static __m512bh columns(const BFloat16* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  static __m512bh broadcast(const BFloat16* p) {
    int32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
};

}  // namespace

void gemm_bf16(const Bf16GemmArgs& args) {
  simd::gemm_bf16<Bf16Dots>(args);
}

}  // namespace lapidary::avx512
