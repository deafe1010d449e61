// Tiles of ggml's blocks on AVX2: dots straight from the blocks, without unpacking them to memory.
//
// Of a unit of 64 columns a row gives two registers of codes, so ordered that each 128-bit half
// holds codes of one group: then the two halves of their products with the activations, which are
// ordered alike, are the dots of two groups.
#pragma once

#include <immintrin.h>

#include "kernels/blocks.h"
#include "kernels/simd/quantized.h"
#include "kernels/x86/avx2_quantized.h"
#include "kernels/x86/load_codes.h"

namespace lapidary::avx2 {
namespace {

struct BlockCodes {
  __m256i a, b;
};

inline __m128i load_half(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline __m256i load_halves(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(low)), load_half(high), 1);
}
inline __m256i load_twice(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(load_half(p));
}
inline __m256i shift_each(__m256i v, int low, int high) {
  return _mm256_srlv_epi32(v, _mm256_setr_epi32(low, low, low, low, high, high, high, high));
}
inline __m256i nibbles(__m256i v) {
  return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

// Blocks of 32 whose codes' low 4 bits begin at byte kOffset: a has columns 0-15 and 32-47 of the
// unit, b 16-31 and 48-63.
template <int kOffset, int kBytes>
[[gnu::always_inline]] inline BlockCodes nibbles_of_two(const uint8_t* p) {
  const __m256i bytes = load_halves(p + kOffset, p + kBytes + kOffset);
  return {nibbles(bytes), nibbles(_mm256_srli_epi16(bytes, 4))};
}
// Bits i of the low and the high word as 16 in byte i of the halves, i from `first` on.
[[gnu::always_inline]] inline __m256i fifth_bits(__m256i words, int first) {
  const __m256i place = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const char byte = static_cast<char>(first / 8), next = static_cast<char>(byte + 1);
  const __m128i bytes = _mm_unpacklo_epi64(_mm_set1_epi8(byte), _mm_set1_epi8(next));
  const __m256i spread = _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(bytes));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, place), place);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}
template <int kBitsAt, int kOffset, int kBytes>
[[gnu::always_inline]] inline BlockCodes five_bits_of_two(const uint8_t* p) {
  const BlockCodes low = nibbles_of_two<kOffset, kBytes>(p);
  const __m256i words =
      _mm256_setr_m128i(_mm_cvtsi32_si128(read_as<int32_t>(p + kBitsAt)),
                        _mm_cvtsi32_si128(read_as<int32_t>(p + kBytes + kBitsAt)));
  return {_mm256_or_si256(low.a, fifth_bits(words, 0)),
          _mm256_or_si256(low.b, fifth_bits(words, 16))};
}

// 32 bytes with the low 4 bits of columns 0-31 of a unit in their low halves, of 32-63 in the high.
[[gnu::always_inline]] inline BlockCodes nibbles_of_unit(const uint8_t* p) {
  return {nibbles(shift_each(load_twice(p), 0, 4)), nibbles(shift_each(load_twice(p + 16), 0, 4))};
}

// unit(block, u): the codes of unit u of a row's blocks from `block` on.
template <class Block>
struct Unit;
template <>
struct Unit<blocks::Q4_0> {
  static BlockCodes codes(const uint8_t* p, int64_t u) { return nibbles_of_two<2, 18>(p + 36 * u); }
};
template <>
struct Unit<blocks::Q4_1> {
  static BlockCodes codes(const uint8_t* p, int64_t u) { return nibbles_of_two<4, 20>(p + 40 * u); }
};
template <>
struct Unit<blocks::Q5_0> {
  static BlockCodes codes(const uint8_t* p, int64_t u) {
    return five_bits_of_two<2, 6, 22>(p + 44 * u);
  }
};
template <>
struct Unit<blocks::Q5_1> {
  static BlockCodes codes(const uint8_t* p, int64_t u) {
    return five_bits_of_two<4, 8, 24>(p + 48 * u);
  }
};
template <>
struct Unit<blocks::Q8_0> {  // signed
  static BlockCodes codes(const uint8_t* p, int64_t u) {
    p += 68 * u;
    return {load_halves(p + 2, p + 36), load_halves(p + 18, p + 52)};
  }
};
template <>
struct Unit<blocks::Q4_K> {
  static BlockCodes codes(const uint8_t* p, int64_t u) { return nibbles_of_unit(p + 16 + 32 * u); }
};
template <>
struct Unit<blocks::Q5_K> {
  static BlockCodes codes(const uint8_t* p, int64_t u) {
    const BlockCodes low = nibbles_of_unit(p + 48 + 32 * u);
    const int bit = 2 * static_cast<int>(u);
    const auto fifth = [&](const uint8_t* bits) {
      const __m256i one = shift_each(load_twice(bits), bit, bit + 1);
      return _mm256_slli_epi16(_mm256_and_si256(one, _mm256_set1_epi8(1)), 4);
    };
    return {_mm256_or_si256(low.a, fifth(p + 16)), _mm256_or_si256(low.b, fifth(p + 32))};
  }
};
// Groups of 16: a has columns 0-31, b 32-63.
template <>
struct Unit<blocks::Q6_K> {
  static BlockCodes codes(const uint8_t* p, int64_t u) {
    const auto load = [](const uint8_t* q) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    };
    const uint8_t* low = p + 64 * (u / 2);
    const __m256i high = load(p + 128 + 32 * (u / 2));
    const int half = static_cast<int>(u % 2);
    const auto run = [&](int i) {
      const __m256i four =
          nibbles(_mm256_srl_epi16(load(low + 32 * i), _mm_cvtsi32_si128(4 * half)));
      const __m256i two = _mm256_and_si256(
          _mm256_srl_epi16(high, _mm_cvtsi32_si128(4 * half + 2 * i)), _mm256_set1_epi8(3));
      return _mm256_or_si256(four, _mm256_slli_epi16(two, 4));
    };
    return {run(0), run(1)};
  }
};

// The f16 at the start of each of 8 blocks.
[[gnu::always_inline]] inline __m256 first_halves(const uint8_t* const* blocks, int64_t offset) {
  const auto pair = [&](int r) {
    return _mm_unpacklo_epi16(load_half(blocks[r] + offset), load_half(blocks[r + 1] + offset));
  };
  const __m128i low = _mm_unpacklo_epi32(pair(0), pair(2));
  const __m128i high = _mm_unpacklo_epi32(pair(4), pair(6));
  return _mm256_cvtph_ps(_mm_unpacklo_epi64(low, high));
}

// 16 rows of 16 bytes, in place.
inline void transpose_bytes(__m128i* v) {
  __m128i other[16];
  for (int step = 0; step < 4; ++step) {  // each interleaves row i with row i + 8
    for (int i = 0; i < 8; ++i) {
      other[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]);
      other[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
    }
    for (int i = 0; i < 16; ++i) v[i] = other[i];
  }
}

// Of a block of 16 rows, whose bytes are lanes: see blocks::six_bits.
struct SixBits {
  __m128i codes[8], minima[8];
  __m256 d[2], minus_dmin[2];  // of rows 0-7 and 8-15
};
[[gnu::always_inline]] inline SixBits six_bits(const uint8_t* const* blocks) {
  __m128i v[16];
  for (int r = 0; r < 16; ++r) v[r] = load_half(blocks[r]);
  transpose_bytes(v);
  const auto bits = [](__m128i x, int shift, int mask) {
    return _mm_and_si128(_mm_srli_epi16(x, shift), _mm_set1_epi8(static_cast<char>(mask)));
  };
  SixBits six;
  for (int i = 0; i < 4; ++i) {
    six.codes[i] = bits(v[4 + i], 0, 63);
    six.minima[i] = bits(v[8 + i], 0, 63);
    six.codes[i + 4] = _mm_or_si128(bits(v[12 + i], 0, 15), bits(v[4 + i], 2, 48));
    six.minima[i + 4] = _mm_or_si128(bits(v[12 + i], 4, 15), bits(v[8 + i], 2, 48));
  }
  const __m256 minus = _mm256_set1_ps(-0.0f);
  six.d[0] = _mm256_cvtph_ps(_mm_unpacklo_epi8(v[0], v[1]));
  six.d[1] = _mm256_cvtph_ps(_mm_unpackhi_epi8(v[0], v[1]));
  six.minus_dmin[0] = _mm256_xor_ps(_mm256_cvtph_ps(_mm_unpacklo_epi8(v[2], v[3])), minus);
  six.minus_dmin[1] = _mm256_xor_ps(_mm256_cvtph_ps(_mm_unpackhi_epi8(v[2], v[3])), minus);
  return six;
}

// Of 16 rows' bytes of two groups, for four rows each: lanes 2 r and 2 r + 1 of 16 bits are the
// first group's of row r, lanes 2 r + 8 and 2 r + 9 the second's.
[[gnu::always_inline]] inline void double_each(__m128i first, __m128i second, __m256i* out) {
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
  const __m256i low = _mm256_unpacklo_epi8(both, _mm256_setzero_si256());
  const __m256i high = _mm256_unpackhi_epi8(both, _mm256_setzero_si256());
  out[0] = _mm256_unpacklo_epi16(low, low);
  out[1] = _mm256_unpackhi_epi16(low, low);
  out[2] = _mm256_unpacklo_epi16(high, high);
  out[3] = _mm256_unpackhi_epi16(high, high);
}
// For eight rows each: the two groups' in lanes 2 r and 2 r + 1 of 16 bits.
[[gnu::always_inline]] inline void pair_each(__m128i first, __m128i second, __m256i* out) {
  out[0] = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second));
  out[1] = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second));
}

}  // namespace
}  // namespace lapidary::avx2

namespace lapidary::simd {

template <class Block>
class BlockTile<avx2::I, avx2::Q, Block> : public BlockRows<avx2::Q, Block> {
  using I = avx2::I;
  using Rows = BlockRows<avx2::Q, Block>;
  using Rows::kSizes, Rows::at_, Rows::count_, Rows::scales_;
  static constexpr bool kSixteens = kSizes.group == 16;
  static constexpr bool kSigned = Block::kFormat == WeightFormat::kQ8_0;
  static constexpr int64_t kUnitGroups = kQuantUnit / kSizes.group;

 public:
  using Rows::kBits, Rows::Rows, typename Rows::Scales;
  static constexpr bool kSplitCodes = false;
  static constexpr bool kFolds = Block::kFormat == WeightFormat::kQ4_K;

  Scales scales() const {
    const Scales all = this->memory();
    if constexpr (blocks::kSixBits<Block>)
      scales_of_six_bits(all);
    else if constexpr (kSixteens)
      scales_of_sixteens(all);
    else
      scales_of_32(all);
    return all;
  }

  // Of Q4_K: y += step * sum over groups, [tokens]; `cell` is the block's first token. A sum of a
  // group's products has 16 bits in two lanes, and where others are widened by a product with 1 it
  // is multiplied with the scale. See SixBitScales for what is exact.
  template <int kTokens, class F>
  [[gnu::always_inline]] void add(const QuantizedRows& x, int64_t cell, F* y) const {
    const avx2::SixBits six = avx2::six_bits(at_);
    __m256i dots[kTokens][4], lows[kTokens][2];
    alignas(16) int16_t sums[kTokens][8];
    for (int t = 0; t < kTokens; ++t) {
      for (__m256i& sum : dots[t]) sum = _mm256_setzero_si256();
      for (__m256i& sum : lows[t]) sum = _mm256_setzero_si256();
      const __m256i whole = _mm256_cvtps_epi32(_mm256_loadu_ps(x.sums + (cell + t) * kQuantGroups));
      _mm_store_si128(
          reinterpret_cast<__m128i*>(sums[t]),
          _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      avx2::BlockCodes codes[kTokens];
      for (int t = 0; t < kTokens; ++t)
        codes[t] = activations(x.codes + (cell + t) * kQuantBlock + u * kQuantUnit);
      __m256i scales[4], minima[2];
      avx2::double_each(six.codes[2 * u], six.codes[2 * u + 1], scales);
      avx2::pair_each(six.minima[2 * u], six.minima[2 * u + 1], minima);
      for (int four = 0; four < 4; ++four) {
        avx2::BlockCodes part[kTokens];
        dots_of_4_rows<kTokens, false>(at_ + 4 * four, u, codes, part);
        for (int t = 0; t < kTokens; ++t)
          dots[t][four] =
              _mm256_add_epi32(dots[t][four], _mm256_madd_epi16(part[t].a, scales[four]));
      }
      for (int t = 0; t < kTokens; ++t) {
        const __m256i two =
            _mm256_set1_epi32(read_as<int32_t>(reinterpret_cast<const uint8_t*>(sums[t] + 2 * u)));
        for (int half = 0; half < 2; ++half)
          lows[t][half] = _mm256_add_epi32(lows[t][half], _mm256_madd_epi16(minima[half], two));
      }
    }
    const F d{six.d[0], six.d[1]}, minus_dmin{six.minus_dmin[0], six.minus_dmin[1]};
    for (int t = 0; t < kTokens; ++t) {
      const I whole{avx2::add_halves(dots[t][0], dots[t][1]),
                    avx2::add_halves(dots[t][2], dots[t][3])};
      y[t] = SixBitScales::fold(F::from(whole), F::from(I{lows[t][0], lows[t][1]}), d, minus_dmin,
                                x.steps[cell + t], y[t]);
    }
  }

  template <int kTokens>
  [[gnu::always_inline]] void dots(int64_t units, const RowCodes& x, int64_t cell,
                                   I (*dots)[kQuantGroups]) const {
    for (int64_t u = 0; u < units; ++u) {
      avx2::BlockCodes codes[kTokens];
      for (int t = 0; t < kTokens; ++t)
        codes[t] = activations(x.whole + cell + t * kQuantBlock + u * kQuantUnit);
      for (int half = 0; half < 2; ++half) {
        avx2::BlockCodes sums[2][kTokens];
        for (int four = 0; four < 2; ++four)
          dots_of_4_rows<kTokens, true>(at_ + 8 * half + 4 * four, u, codes, sums[four]);
        for (int t = 0; t < kTokens; ++t) {
          put(sums[0][t].a, sums[1][t].a, half, dots[t] + kUnitGroups * u);
          if constexpr (kSixteens) put(sums[0][t].b, sums[1][t].b, half, dots[t] + 4 * u + 2);
        }
      }
      if constexpr (kSigned)
        for (int t = 0; t < kTokens; ++t) add_offset(codes[t], dots[t] + 2 * u);
    }
  }

 private:
  // In the order of the weights' codes.
  static avx2::BlockCodes activations(const int8_t* p) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
    if constexpr (kSixteens) return {low, high};
    return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
  }

  // Lane r: of row r and the first of the two groups; lane r + 4: of the second. Of groups of 16,
  // where a and b are two groups each, a vector for either. Not wide: two lanes of 16 bits each.
  template <int kTokens, bool kWide>
  [[gnu::always_inline]] static void dots_of_4_rows(const uint8_t* const* rows, int64_t u,
                                                    const avx2::BlockCodes* x,
                                                    avx2::BlockCodes* dots) {
    avx2::BlockCodes sums[kTokens][4];
    for (int r = 0; r < 4; ++r) {
      const uint8_t* row = rows[r];
      asm("" : "+r"(row));  // otherwise GCC 12 moves the weights through the stack
      const avx2::BlockCodes w = avx2::Unit<Block>::codes(row, u);
      for (int t = 0; t < kTokens; ++t) {
        sums[t][r] = products(w, x[t]);
        if (kTokens > 1) asm volatile("" : "+x"(sums[t][r].a));  // one row after another
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      const auto sum = [&](auto part) {
        const __m256i v[4] = {part(sums[t][0]), part(sums[t][1]), part(sums[t][2]),
                              part(sums[t][3])};
        if constexpr (kSigned) return sum_of_wide(v);
        return kWide ? avx2::wide_sum_of_each<kFit>(v) : avx2::sum_of_each<kFit>(v);
      };
      dots[t].a = sum([](const avx2::BlockCodes& c) { return c.a; });
      if constexpr (kSixteens) dots[t].b = sum([](const avx2::BlockCodes& c) { return c.b; });
    }
  }

  // Sums of 16 bits hold two pairs of products, of groups of 16 one. Signed codes, whose
  // magnitudes are up to 128, have room for one pair alone (2 x 128 x 127) and 32 bits from there.
  [[gnu::always_inline]] static avx2::BlockCodes products(const avx2::BlockCodes& w,
                                                          const avx2::BlockCodes& x) {
    if constexpr (kSigned) {
      const auto wide = [&](__m256i codes, __m256i y) {
        return avx2::widen(
            _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(y, codes)));
      };
      return {_mm256_add_epi32(wide(w.a, x.a), wide(w.b, x.b)), _mm256_setzero_si256()};
    } else {
      const __m256i a = _mm256_maddubs_epi16(w.a, x.a), b = _mm256_maddubs_epi16(w.b, x.b);
      if constexpr (kSixteens) return {a, b};
      return {_mm256_add_epi16(a, b), _mm256_setzero_si256()};
    }
  }
  // sum_of_each takes vectors of two pairs; one pair leaves room for twice as many.
  static constexpr int kFit =
      kSixteens ? 2 * avx2::quads_per_sum(kBits) : avx2::quads_per_sum(kBits);

  static __m256i sum_of_wide(const __m256i* v) {
    const auto two = [](__m256i a, __m256i b) {
      return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    };
    const __m256i a = two(v[0], v[1]), b = two(v[2], v[3]);
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  }

  // Rows 0-3 and 4-7 of two groups.
  static void put(__m256i first, __m256i second, int half, I* dots) {
    (half == 0 ? dots[0].lo : dots[0].hi) = _mm256_permute2x128_si256(first, second, 0x20);
    (half == 0 ? dots[1].lo : dots[1].hi) = _mm256_permute2x128_si256(first, second, 0x31);
  }

  // Codes are 128 more than their signed form.
  static void add_offset(const avx2::BlockCodes& x, I* dots) {
    const __m256i eight = _mm256_set1_epi8(8);
    const __m256i sums = _mm256_madd_epi16(
        _mm256_add_epi16(_mm256_maddubs_epi16(eight, x.a), _mm256_maddubs_epi16(eight, x.b)),
        _mm256_set1_epi16(16));
    const __m256i two = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
    const __m256i all = _mm256_add_epi32(two, _mm256_shuffle_epi32(two, 0xb1));
    const __m256i low = _mm256_permute2x128_si256(all, all, 0x00);
    const __m256i high = _mm256_permute2x128_si256(all, all, 0x11);
    dots[0] = dots[0] + I{low, low};
    dots[1] = dots[1] + I{high, high};
  }

  static void put(float* to, int64_t g, int half, __m256 v) {
    _mm256_storeu_ps(to + 16 * g + 8 * half, v);
  }

  // A scale per block, and a bias beside it or none of its own.
  void scales_of_32(const Scales& all) const {
    constexpr bool kOwnBias =
        Block::kFormat == WeightFormat::kQ4_1 || Block::kFormat == WeightFormat::kQ5_1;
    constexpr float kOffset = -static_cast<float>(1 << (kBits - 1));
    for (int64_t i = 0; i < count_; ++i)
      for (int half = 0; half < 2; ++half) {
        const uint8_t* const* rows = at_ + 8 * half;
        const __m256 scale = avx2::first_halves(rows, i * kSizes.bytes);
        const __m256 bias = kOwnBias ? avx2::first_halves(rows, i * kSizes.bytes + 2)
                                     : _mm256_mul_ps(scale, _mm256_set1_ps(kOffset));
        put(all.scales, i, half, scale);
        put(all.biases, i, half, bias);
      }
  }

  void scales_of_six_bits(const Scales& all) const {
    const avx2::SixBits six = avx2::six_bits(at_);
    for (int half = 0; half < 2; ++half) {
      const auto floats = [&](__m128i bytes) {
        return _mm256_cvtepi32_ps(
            _mm256_cvtepu8_epi32(half == 0 ? bytes : _mm_srli_si128(bytes, 8)));
      };
      for (int g = 0; g < 8; ++g) {
        put(all.codes, g, half, floats(six.codes[g]));
        put(all.minima, g, half, floats(six.minima[g]));
      }
      put(all.factors, 0, half, six.d[half]);
      put(all.factors, 1, half, six.minus_dmin[half]);
    }
  }

  // 16 signed bytes, then d.
  void scales_of_sixteens(const Scales& all) const {
    __m128i v[16];
    for (int r = 0; r < 16; ++r) v[r] = avx2::load_half(at_[r] + 192);
    avx2::transpose_bytes(v);
    for (int half = 0; half < 2; ++half) {
      // The f16 is the last of the block: it is the last of what can be loaded.
      __m128i last[8];
      const uint8_t* ends[8];
      for (int r = 0; r < 8; ++r) {
        last[r] = _mm_srli_si128(avx2::load_half(at_[8 * half + r] + 194), 14);
        ends[r] = reinterpret_cast<const uint8_t*>(&last[r]);
      }
      const __m256 d = avx2::first_halves(ends, 0);
      for (int g = 0; g < 16; ++g) {
        const __m128i bytes = half == 0 ? v[g] : _mm_srli_si128(v[g], 8);
        const __m256 scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
        put(all.scales, g, half, scale);
        put(all.biases, g, half, _mm256_mul_ps(scale, _mm256_set1_ps(-32)));
      }
    }
  }
};

}  // namespace lapidary::simd
