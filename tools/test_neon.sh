#!/bin/sh
# Builds the kernels for AArch64 into build/aarch64 and runs their tests under QEMU.
#   tools/test_neon.sh [JOBS]
# Exit code 77, with the reason on stdout: this machine lacks what that takes.
set -eu
cd "$(dirname "$0")/.."
jobs=${1:-2}

skip() {
  echo "skipped: no $1; tools/setup.sh test installs it"
  exit 77
}
for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v "$tool" >/dev/null || skip "$tool"
done
[ -e /usr/src/googletest/googletest/src/gtest-all.cc ] || skip "sources of googletest in /usr/src"

cmake --preset aarch64 >/dev/null
cmake --build build/aarch64 -j "$jobs"
ctest --preset aarch64 -j "$jobs"
