// What of this process and its files lies in memory, as the system counts it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace lapidary {

// Bytes of this process in memory. The three add up to its resident size.
struct ProcessMemory {
  int64_t anonymous = 0;  // heap, stacks, and pages of files that were written to
  int64_t files = 0;      // mapped pages of the files asked about, as far as they were touched
  int64_t program = 0;    // of other files: the program itself and its libraries
  int64_t total() const { return anonymous + files + program; }
};

// By the mappings of /proc/self/smaps: walks all page tables, some milliseconds per gigabyte.
// `files` are real paths, without links.
ProcessMemory process_memory(std::span<const std::filesystem::path> files);
// The same of a text of that form.
ProcessMemory parse_smaps(std::string_view smaps, std::span<const std::filesystem::path> files);

// Resident size and, of it, mapped pages of files; costs microseconds.
struct ResidentSize {
  int64_t total = 0;
  int64_t files = 0;
};
ResidentSize resident_size();

// Makes peak_rss_bytes() (system.h) count from here on; false where the system does not let it.
bool restart_peak_rss();

// How many bytes of these pieces of this process's memory are in memory. Of a mapped file that
// means the page cache, whether this process has touched them or not.
int64_t resident_bytes(std::span<const std::span<const std::byte>> pieces);

// Whether the system tells what it caches of a file: to its owner, and to who may write it. Others
// would be told that all of it is there.
bool tells_page_cache(const std::filesystem::path& file);

}  // namespace lapidary
