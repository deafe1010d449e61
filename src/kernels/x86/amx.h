// The tile vocabulary of simd/tiles.h on AMX-INT8.
//
// Tile 0 holds sums; 2 and 3 the codes and weights of 16 quads, 4 and 5 those of 8. GCC 12 pastes
// tile numbers into the instructions as they are written: they must be digits.
#pragma once

#include <cstdint>
#include <immintrin.h>

#include "kernels/kernels.h"

namespace lapidary::amx {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 32, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 8};
};

struct Tiles {
  static void configure() {
    TileConfig config;
    // GCC 12 does not know that the instruction reads the struct; without this it may come first.
    asm volatile("" : : "m"(config) : "memory");
    _tile_loadconfig(&config);
  }
  static void release() { _tile_release(); }
  static void zero() { _tile_zero(0); }
  static void load_sums(const void* p) { _tile_loadd(0, p, 64); }
  template <int n>
  static void load_codes(const int8_t* p) {
    if constexpr (n == 16)
      _tile_loadd(2, p, kQuantBlock);
    else
      _tile_loadd(4, p, kQuantBlock);
  }
  template <int n>
  static void load_weights(const uint8_t* p) {
    if constexpr (n == 16)
      _tile_loadd(3, p, 64);
    else
      _tile_loadd(5, p, 64);
  }
  template <int n>
  static void multiply() {
    if constexpr (n == 16)
      _tile_dpbsud(0, 2, 3);
    else
      _tile_dpbsud(0, 4, 5);
  }
  static void store_sums(void* p) { _tile_stored(0, p, 64); }
};

}  // namespace
}  // namespace lapidary::amx
