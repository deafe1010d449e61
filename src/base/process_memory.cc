#include "base/process_memory.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"

namespace lapidary {

namespace {

int64_t page_bytes() {
  static const int64_t bytes = ::sysconf(_SC_PAGESIZE);
  return bytes;
}

std::string read_text(const char* path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.empty()) fail_resource("{}: cannot read what memory is in use", path);
  return text;
}

// The path at the end of a mapping's first line, "5600-5700 r--p 00000000 fe:00 247278    /path":
// the sixth field, which may have blanks in it.
std::string_view mapped_path(std::string_view line) {
  for (int field = 0; field < 5; ++field) {
    line.remove_prefix(std::min(line.find(' '), line.size()));
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  }
  return line;
}

// The bytes of "Rss:      8 kB", if it is the line of that name.
std::optional<int64_t> kib_line(std::string_view line, std::string_view name) {
  if (!line.starts_with(name)) return std::nullopt;
  line.remove_prefix(std::min(line.find_first_not_of(' ', name.size()), line.size()));
  int64_t kib = 0;
  std::from_chars(line.data(), line.data() + line.size(), kib);
  return kib * 1024;
}

}  // namespace

ProcessMemory parse_smaps(std::string_view smaps, std::span<const std::filesystem::path> files) {
  ProcessMemory memory;
  bool ours = false;
  int64_t resident = 0;
  while (!smaps.empty()) {
    const size_t end = std::min(smaps.find('\n'), smaps.size());
    const std::string_view line = smaps.substr(0, end);
    smaps.remove_prefix(std::min(end + 1, smaps.size()));
    if (line.empty()) continue;
    if (line[0] < 'A' || line[0] > 'Z') {  // an address: the lines of names have capitals
      const std::string_view path = mapped_path(line);
      ours = std::ranges::any_of(files, [&](const auto& file) { return file.native() == path; });
    } else if (const auto rss = kib_line(line, "Rss:")) {
      resident = *rss;
    } else if (const auto anonymous = kib_line(line, "Anonymous:")) {
      memory.anonymous += *anonymous;
      (ours ? memory.files : memory.program) += resident - *anonymous;
    }
  }
  return memory;
}

ProcessMemory process_memory(std::span<const std::filesystem::path> files) {
  return parse_smaps(read_text("/proc/self/smaps"), files);
}

ResidentSize resident_size() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  if (!(file >> size >> resident >> shared))
    fail_resource("/proc/self/statm: cannot read what memory is in use");
  return {resident * page_bytes(), shared * page_bytes()};
}

bool restart_peak_rss() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

int64_t resident_bytes(std::span<const std::span<const std::byte>> pieces) {
  const int64_t page = page_bytes();
  int64_t resident = 0;
  std::vector<unsigned char> present;
  for (const std::span<const std::byte> piece : pieces) {
    if (piece.empty()) continue;
    const auto first = reinterpret_cast<int64_t>(piece.data());
    const int64_t last = first + std::ssize(piece), from = first / page * page;
    present.resize(static_cast<size_t>((last - from + page - 1) / page));
    if (::mincore(reinterpret_cast<void*>(from), static_cast<size_t>(last - from),
                  present.data()) != 0)
      fail_resource("mincore: {}", std::strerror(errno));
    for (size_t i = 0; i < present.size(); ++i) {
      const int64_t begin = from + static_cast<int64_t>(i) * page;
      if ((present[i] & 1) != 0) resident += std::min(last, begin + page) - std::max(first, begin);
    }
  }
  return resident;
}

bool tells_page_cache(const std::filesystem::path& file) {
  struct stat info {};
  return ::stat(file.c_str(), &info) == 0 &&
         (info.st_uid == ::geteuid() || ::access(file.c_str(), W_OK) == 0);
}

}  // namespace lapidary
