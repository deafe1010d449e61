#include "kernels/x86/amx_permission.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/x86/cpu.h"

namespace lapidary::x86 {

bool amx_permitted() {
  // The numbers are the kernel's (asm/prctl.h, and the index of the tile data in XSAVE's area),
  // which older headers do not have.
  static const bool granted = [] {
    constexpr long kRequestStatePermission = 0x1023, kTileData = 18;
    return cpu().amx_int8 && syscall(SYS_arch_prctl, kRequestStatePermission, kTileData) == 0;
  }();
  return granted;
}

}  // namespace lapidary::x86
