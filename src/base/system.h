// What the operating system says about this process and machine.
#pragma once

#include <cstdint>
#include <string>

namespace lapidary {

// Largest resident size so far in bytes, mapped file pages that were touched included.
int64_t peak_rss_bytes();
// Resident size now.
int64_t rss_bytes();
// The largest size of another process; 0 when it is gone, or the system does not say.
int64_t peak_rss_bytes_of(int process);

// Bytes that could be allocated now without swapping: the system's own estimate, lowered to what
// the control group (container) still allows.
int64_t available_memory_bytes();

// The processor's name as it gives it: "AMD EPYC 7763 64-Core Processor"; "unknown" if it does not.
std::string cpu_name();

}  // namespace lapidary
