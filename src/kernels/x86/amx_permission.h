// The tile registers of AMX: Linux gives them to a process that asks.
#pragma once

namespace lapidary::x86 {

// Asks the first time, for all threads of the process; false where the CPU or the system has no
// tiles.
bool amx_permitted();

}  // namespace lapidary::x86
