// What the tiles of AMX do at most: 2 x 2 tiles of sums, as many as hide the latency of a product,
// two tiles of rows and two of columns.
#include <cstring>
#include <immintrin.h>

#include "kernels/x86/probes.h"

namespace lapidary::amx {
namespace {

// What ldtilecfg reads: palette 1, eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

void set_up(int byte) {
  const TileConfig config;
  alignas(64) uint8_t operand[1024];
  std::memset(operand, byte, sizeof operand);
  // g++ 12 does not know that the instruction reads memory: without this the configuration may be
  // written after it.
  asm volatile("" ::"r"(&config), "r"(operand) : "memory");
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, operand, 64);
  _tile_loadd(5, operand, 64);
  _tile_loadd(6, operand, 64);
  _tile_loadd(7, operand, 64);
  asm volatile("" ::: "memory");
}

}  // namespace

void probe_int8(int64_t iterations) {
  set_up(3);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
}

void probe_bf16(int64_t iterations) {
  set_up(0x3e);  // 0x3e3e is 0.19
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

}  // namespace lapidary::amx
