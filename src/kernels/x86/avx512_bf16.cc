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
    for (int64_t row = 0; row < kBf16Panel; row += kRows)
      rows(a + bf16_position(Bf16Operand::kRows, row, 0), b, depth, c + row * stride, stride, add);
  }

 private:
  static constexpr int kRows = 8;  // x 32 columns: 16 sums, 2 pairs of columns, a pair of a row

  static void rows(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                   bool add) {
    __m512 sums[kRows][2];
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < 2; ++v)
        sums[r][v] = add ? _mm512_loadu_ps(c + r * stride + 16 * v) : _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += kBf16Step, a += 2 * kBf16TileSize, b += 2 * kBf16TileSize)
      for (int pair = 0; pair < kBf16Step / 2; ++pair) {
        const __m512bh left = columns(b + 2 * kBf16Tile * pair);
        const __m512bh right = columns(b + kBf16TileSize + 2 * kBf16Tile * pair);
        for (int r = 0; r < kRows; ++r) {
          const __m512bh x = broadcast(a + r * kBf16Step + 2 * pair);
          sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, left);
          sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, right);
        }
      }
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < 2; ++v) _mm512_storeu_ps(c + r * stride + 16 * v, sums[r][v]);
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
