// Random numbers as a pure function of (seed, stream, index).
//
// Nothing is stored, so draws are the same whatever the order or the thread that asks, and a
// session that was saved and restored goes on with the draws it would have had.
#pragma once

#include <cstdint>

namespace lapidary {

// splitmix64's finaliser: a bijection of 64-bit words that passes BigCrush on counters.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class CounterRng {
 public:
  constexpr explicit CounterRng(uint64_t seed, uint64_t stream = 0)
      : key_(mix64(mix64(seed) ^ (stream * 0xd6e8feb86659fd93u))) {}

  constexpr uint64_t bits(uint64_t index) const {
    return mix64(key_ ^ (index * 0x9e3779b97f4a7c15u));
  }
  // In [0, 1), 53 bits.
  constexpr double uniform(uint64_t index) const {
    return static_cast<double>(bits(index) >> 11) * 0x1p-53;
  }
  // Nearly normal, mean 0, standard deviation 1: the sum of four 16-bit uniforms (|x| < 3.47).
  constexpr float normal(uint64_t index) const {
    const uint64_t b = bits(index);
    const auto sum = static_cast<int32_t>((b & 0xffff) + ((b >> 16) & 0xffff) +
                                          ((b >> 32) & 0xffff) + (b >> 48));
    return static_cast<float>(sum - 131070) * (1.7320508f / 65536.0f);
  }

 private:
  uint64_t key_;
};

}  // namespace lapidary
