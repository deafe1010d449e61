// Bytes on AVX2, for simd/quantized.h. The product is vpmaddubsw (unsigned codes times signed
// activations, neighbours added, 16 bits), which saturates: codes of 8 bits go nibble by nibble.
#pragma once

#include <immintrin.h>

#include "kernels/simd/codes.h"
#include "kernels/simd/quantized.h"
#include "kernels/x86/load_codes.h"
#include "kernels/x86/transpose.h"

namespace lapidary::avx2 {
namespace {

struct I {
  __m256i lo;  // lanes 0-7
  __m256i hi;  // lanes 8-15
};
inline I operator+(I a, I b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}

// The codes of a unit, at their unit_position().
struct UnitCodes {
  __m256i part[2];
};

// Products of a quad that fit 16 bits: 2 * (2^bits - 1) * 127 each, 32767 in all.
constexpr int quads_per_sum(int bits) {
  return bits == 8                                    ? 8
         : 32767 / (2 * ((1 << bits) - 1) * 127) < 16 ? 32767 / (2 * ((1 << bits) - 1) * 127)
                                                      : 16;
}

inline __m256i widen(__m256i sums) {
  return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}
// Lanes r and r + 4 together: the sum over the lanes of v[r], which are 16 bits wide and sum 2
// pairs each. They are added up in 16 bits for as long as kFit pairs fit; with 8, which is all, the
// result is in lanes 2 r, 2 r + 1, 2 r + 8 and 2 r + 9 of 16 bits.
template <int kFit>
[[gnu::always_inline]] inline __m256i sum_of_each(const __m256i* v) {
  const auto two = [](__m256i a, __m256i b) {
    if constexpr (kFit < 4) {
      a = widen(a);
      b = widen(b);
    }
    const __m256i lows = _mm256_unpacklo_epi32(a, b), highs = _mm256_unpackhi_epi32(a, b);
    if constexpr (kFit < 4) return _mm256_add_epi32(lows, highs);
    const __m256i sum = _mm256_add_epi16(lows, highs);
    return kFit < 8 ? widen(sum) : sum;
  };
  const __m256i a = two(v[0], v[1]), b = two(v[2], v[3]);
  const __m256i lows = _mm256_unpacklo_epi64(a, b), highs = _mm256_unpackhi_epi64(a, b);
  if constexpr (kFit < 8) return _mm256_add_epi32(lows, highs);
  return _mm256_add_epi16(lows, highs);
}
// In 32 bits, whatever kFit.
template <int kFit>
[[gnu::always_inline]] inline __m256i wide_sum_of_each(const __m256i* v) {
  return kFit < 8 ? sum_of_each<kFit>(v) : widen(sum_of_each<kFit>(v));
}
// The sums of lanes r and r + 4: of a in lanes 0-3, of b in 4-7.
inline __m256i add_halves(__m256i a, __m256i b) {
  return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                          _mm256_permute2x128_si256(a, b, 0x31));
}

struct Q {
  static constexpr int kVectors = 1;
  static constexpr int kTokens = 4;  // x 16 rows: 8 sums of 16 bits, 2 codes, an activation

  static constexpr bool kOffsetsBytes = false;

  static void begin() {}
  static void end() {}

  template <class F>
  static void store_codes(int8_t* p, F a) {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }

  template <int kBits>
  static void arrange(const int8_t* natural, int8_t* out) {
    __m256i a = load(natural), b = load(natural + 32);
    if constexpr (kBits == 2 || kBits == 4) deinterleave(a, b);
    if constexpr (kBits == 2) {
      deinterleave(a, b);  // a: codes 0, 4, ... and 1, 5, ...; b: 2, 6, ... and 3, 7, ...
    }
    store(out, a);
    store(out + 32, b);
  }

  template <int kGroups>
  static void transpose_scales(const std::byte* const* rows, int64_t g, bool bf16, float* out,
                               int64_t stride) {
    x86::transpose_scales<kGroups>(rows, g, bf16, out, stride);
    x86::transpose_scales<kGroups>(rows + 8, g, bf16, out + 8, stride);
  }

  template <int kBits, int kTokens>
  [[gnu::always_inline]] static void dot_units(const uint8_t* const* rows, int64_t offset,
                                               int64_t units, const int8_t* codes,
                                               I (*out)[kQuantGroups]) {
    for (int64_t u = 0; u < units; ++u) {
      UnitCodes x[kTokens];
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* p = codes + t * kQuantBlock + u * kQuantUnit;
        x[t] = {{load(p), load(p + 32)}};
      }
      const int64_t at = offset + u * (kQuantUnit * kBits / 8);
      for (int half = 0; half < 2; ++half) {
        __m256i dots[2][kTokens];
        for (int four = 0; four < 2; ++four)
          dots_of_4_rows<kBits, kTokens>(rows + 8 * half + 4 * four, at, x, dots[four]);
        for (int t = 0; t < kTokens; ++t)
          (half == 0 ? out[t][u].lo : out[t][u].hi) = add_halves(dots[0][t], dots[1][t]);
      }
    }
  }

  template <int kBits>
  static void pack_unit(const uint8_t* const* rows, int64_t offset, const simd::QuadOrder& order,
                        uint8_t* out) {
    for (int half = 0; half < 2; ++half) {
      __m256i quads[2][8];
      for (int r = 0; r < 8; ++r) {
        const UnitCodes w = unpack<kBits>(rows[8 * half + r] + offset);
        quads[0][r] = w.part[0];
        quads[1][r] = w.part[1];
      }
      for (int part = 0; part < 2; ++part) {
        x86::transpose_8x8(quads[part]);
        for (int q = 0; q < 8; ++q)
          store(out + 64 * order.place[8 * part + q] + 32 * half, quads[part][q]);
      }
    }
  }

  template <int kBits, int, int kTokens>
  [[gnu::always_inline]] static void dot_quads(const uint8_t* unit, int64_t, int count,
                                               const int8_t* codes, I (*of_vectors)[kTokens],
                                               bool add) {
    I* dots = of_vectors[0];
    if (!add)
      for (int t = 0; t < kTokens; ++t) dots[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    if constexpr (kBits == 8) {
      add_quads<kTokens, 8, kLowNibble>(unit, count, codes, dots);
      add_quads<kTokens, 8, kHighNibble>(unit, count, codes, dots);
    } else {
      add_quads<kTokens, quads_per_sum(kBits), kWhole>(unit, count, codes, dots);
    }
  }

 private:
  static __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static void store(void* p, __m256i a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }

  // 64 bytes to their even ones, then their odd ones.
  static void deinterleave(__m256i& a, __m256i& b) {
    const __m256i low = _mm256_set1_epi16(0xff);
    const __m256i even = _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    const __m256i odd = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
    a = _mm256_permute4x64_epi64(even, 0xd8);
    b = _mm256_permute4x64_epi64(odd, 0xd8);
  }

  // 32 codes of 3, 5 or 6 bits: each 16-bit lane takes the two bytes around its code; a product
  // by a power of two moves the code to the top.
  template <int kBits>
  static __m256i spread(const uint8_t* p) {
    static constexpr simd::WordTable kTable = simd::make_word_table<kBits>();
    const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(load_codes<kBits>(p)),
                                                  load_codes<kBits>(p + 2 * kBits), 1);
    const auto words = [&](int i) {
      const __m256i word = _mm256_shuffle_epi8(bytes, load(kTable.shuffle[i]));
      return _mm256_srli_epi16(_mm256_mullo_epi16(word, load(kTable.factor[i])), 16 - kBits);
    };
    return _mm256_packus_epi16(words(0), words(1));
  }

  template <int kBits>
  [[gnu::always_inline]] static UnitCodes unpack(const uint8_t* p) {
    if constexpr (kBits == 8) return {{load(p), load(p + 32)}};
    if constexpr (kBits == 4) {
      const __m256i mask = _mm256_set1_epi8(15), bytes = load(p);
      return {{_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask)}};
    }
    if constexpr (kBits == 2) {
      const __m256i mask = _mm256_set1_epi8(3);
      const __m256i bytes =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      const __m256i first = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
      const __m256i second = _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6);
      return {{_mm256_and_si256(_mm256_srlv_epi32(bytes, first), mask),
               _mm256_and_si256(_mm256_srlv_epi32(bytes, second), mask)}};
    }
    if constexpr (kBits == 3 || kBits == 5 || kBits == 6)
      return {{spread<kBits>(p), spread<kBits>(p + 4 * kBits)}};
  }

  enum Part { kWhole, kLowNibble, kHighNibble };  // of a code

  template <Part kPart>
  static __m256i part_of(__m256i codes) {
    if constexpr (kPart == kWhole) return codes;
    const __m256i shifted = kPart == kHighNibble ? _mm256_srli_epi16(codes, 4) : codes;
    return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
  }

  // Lanes r and r + 4 together: the dot of a unit of row r with a token; a vector per token.
  template <int kBits, int kTokens>
  [[gnu::always_inline]] static void dots_of_4_rows(const uint8_t* const* rows, int64_t at,
                                                    const UnitCodes* x, __m256i* dots) {
    if constexpr (kBits == 8) {
      __m256i high[kTokens];
      dots_of_part<8, kTokens, kLowNibble>(rows, at, x, dots);
      dots_of_part<8, kTokens, kHighNibble>(rows, at, x, high);
      for (int t = 0; t < kTokens; ++t)
        dots[t] = _mm256_add_epi32(dots[t], _mm256_slli_epi32(high[t], 4));
    } else {
      dots_of_part<kBits, kTokens, kWhole>(rows, at, x, dots);
    }
  }

  template <int kBits, int kTokens, Part kPart>
  [[gnu::always_inline]] static void dots_of_part(const uint8_t* const* rows, int64_t at,
                                                  const UnitCodes* x, __m256i* dots) {
    __m256i sums[kTokens][4];
    for (int r = 0; r < 4; ++r) {
      const uint8_t* row = rows[r];
      asm("" : "+r"(row));  // otherwise GCC 12 moves the weights through the stack
      const UnitCodes w = unpack<kBits>(row + at);
      const __m256i low = part_of<kPart>(w.part[0]), high = part_of<kPart>(w.part[1]);
      for (int t = 0; t < kTokens; ++t) {
        sums[t][r] = _mm256_add_epi16(_mm256_maddubs_epi16(low, x[t].part[0]),
                                      _mm256_maddubs_epi16(high, x[t].part[1]));
        if (kTokens > 1) asm volatile("" : "+x"(sums[t][r]));  // one row after another
      }
    }
    for (int t = 0; t < kTokens; ++t) dots[t] = wide_sum_of_each<quads_per_sum(kBits)>(sums[t]);
  }

  // Adds the dots over `count` quads, 8 or 16, of that part of every code; sums of 16 bits take at
  // most kFit quads.
  template <int kTokens, int kFit, Part kPart>
  [[gnu::always_inline]] static void add_quads(const uint8_t* unit, int count, const int8_t* codes,
                                               I* dots) {
    constexpr int kQuads = kFit < 8 ? kFit : 8;
    const __m256i weight = _mm256_set1_epi16(kPart == kHighNibble ? 16 : 1);
    for (int first = 0; first < count; first += kQuads) {
      I sums[kTokens];
      for (I& sum : sums) sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8  // in a loop, or without the barrier below, GCC 12 moves or spills the sums
      for (int quad = 0; quad < kQuads; ++quad) {
        const uint8_t* w = unit + 64 * (first + quad);
        const __m256i low = part_of<kPart>(load(w)), high = part_of<kPart>(load(w + 32));
        for (int t = 0; t < kTokens; ++t) {
          const __m256i x = _mm256_set1_epi32(read_as<int32_t>(
              reinterpret_cast<const uint8_t*>(codes + t * kQuantBlock + 4 * (first + quad))));
          sums[t].lo = _mm256_add_epi16(sums[t].lo, _mm256_maddubs_epi16(low, x));
          sums[t].hi = _mm256_add_epi16(sums[t].hi, _mm256_maddubs_epi16(high, x));
          asm volatile("" : "+x"(sums[t].lo), "+x"(sums[t].hi));  // one token after another
        }
      }
      for (int t = 0; t < kTokens; ++t)
        dots[t] = dots[t] +
                  I{_mm256_madd_epi16(sums[t].lo, weight), _mm256_madd_epi16(sums[t].hi, weight)};
    }
  }
};

}  // namespace
}  // namespace lapidary::avx2
