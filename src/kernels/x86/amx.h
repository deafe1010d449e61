// The tile vocabularies of simd/tiles.h on AMX-INT8, and of simd/bf16_tiles.h on AMX-BF16.
//
// GCC 12 pastes tile numbers into the instructions as they are written: they must be digits.
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
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

inline void load_config(const TileConfig& config) {
  // GCC 12 does not know that the instruction reads the struct; without this it may come first.
  asm volatile("" : : "m"(config) : "memory");
  _tile_loadconfig(&config);
}

// GCC 12 does not know either that loads of tiles read memory: what is written there comes first.
inline void finish_stores() {
  asm volatile("" : : : "memory");
}

// Tile 0 holds sums; 2 and 3 the codes and weights of 16 quads, 4 and 5 those of 8.
struct Tiles {
  static void configure() {
    load_config({.row_bytes = {64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 8}});
  }
  static void release() { _tile_release(); }
  static void zero() { _tile_zero(0); }
  static void load_sums(const void* p) {
    finish_stores();
    _tile_loadd(0, p, 64);
  }
  template <int n>
  static void load_codes(const int8_t* p) {
    finish_stores();
    if constexpr (n == 16)
      _tile_loadd(2, p, kQuantBlock);
    else
      _tile_loadd(4, p, kQuantBlock);
  }
  template <int n>
  static void load_weights(const uint8_t* p) {
    finish_stores();
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

// Tiles 0 to 3 hold the sums, 4 and 5 rows, 6 and 7 columns.
struct Bf16Tiles {
  static void configure() {
    load_config(
        {.row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}});
  }
  static void release() { _tile_release(); }
  static void zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  static void load(const float* c, int64_t stride) {
    finish_stores();
    const float* below = c + kBf16Tile * stride;
    _tile_loadd(0, c, 4 * stride);
    _tile_loadd(1, c + kBf16Tile, 4 * stride);
    _tile_loadd(2, below, 4 * stride);
    _tile_loadd(3, below + kBf16Tile, 4 * stride);
  }
  static void multiply(const BFloat16* a, const BFloat16* b) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kBf16TileSize, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kBf16TileSize, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  static void store(float* c, int64_t stride) {
    float* below = c + kBf16Tile * stride;
    _tile_stored(0, c, 4 * stride);
    _tile_stored(1, c + kBf16Tile, 4 * stride);
    _tile_stored(2, below, 4 * stride);
    _tile_stored(3, below + kBf16Tile, 4 * stride);
  }
};

}  // namespace
}  // namespace lapidary::amx
