// What the system says is in memory, against what was touched.
#include "base/process_memory.h"

#include <fstream>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "base/scratch_folder.h"
#include "base/system.h"

namespace lapidary {
namespace {

constexpr int64_t kMib = int64_t{1} << 20;

TEST(ProcessMemory, SortsMappings) {
  const char* smaps =
      "5600-5700 r--p 00000000 fe:00 247278                     /models/a b.safetensors\n"
      "Size:                400 kB\nRss:                 300 kB\nPss:                 300 kB\n"
      "Anonymous:             4 kB\nAnonHugePages:         0 kB\n"
      "5800-5900 r-xp 00000000 fe:00 1                          /usr/lib/libc.so.6\n"
      "Rss:                  40 kB\nAnonymous:             0 kB\n"
      "7ffd-7ffe rw-p 00000000 00:00 0                          [stack]\n"
      "Rss:                  12 kB\nAnonymous:            12 kB\n"
      "7fff-8000 rw-p 00000000 00:00 0 \n"
      "Rss:                   8 kB\nAnonymous:             8 kB";
  const std::filesystem::path files[] = {"/models/other", "/models/a b.safetensors"};
  const ProcessMemory memory = parse_smaps(smaps, files);
  EXPECT_EQ(memory.files, 296 * 1024);
  EXPECT_EQ(memory.program, 40 * 1024);
  EXPECT_EQ(memory.anonymous, 24 * 1024);
  EXPECT_EQ(memory.total(), 360 * 1024);
}

TEST(ProcessMemory, CountsWhatIsTouched) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer's shadow of what is touched counts too";
#endif
  constexpr int64_t kSize = 64 * kMib;
  void* memory = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  ::madvise(memory, kSize, MADV_NOHUGEPAGE);
  auto* bytes = static_cast<std::byte*>(memory);
  const std::span<const std::byte> all[] = {{bytes, kSize}};
  EXPECT_EQ(resident_bytes(all), 0);
  const ProcessMemory before = process_memory({});
  const ResidentSize small = resident_size();
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  for (int64_t i = 0; i < kSize / 2; i += page) bytes[i] = std::byte{1};
  EXPECT_EQ(resident_bytes(all), kSize / 2);
  // Pieces that begin and end within pages count as far as they go.
  const std::span<const std::byte> pieces[] = {{bytes + 100, 50}, {bytes + kSize / 2 - 10, 30}};
  EXPECT_EQ(resident_bytes(pieces), 60);
  EXPECT_NEAR(static_cast<double>(process_memory({}).anonymous - before.anonymous), kSize / 2.0,
              1.0 * kMib);
  const ResidentSize large = resident_size();
  EXPECT_NEAR(static_cast<double>(large.total - small.total), kSize / 2.0, 2.0 * kMib);
  EXPECT_NEAR(static_cast<double>(large.files - small.files), 0, 1.0 * kMib);
  if (restart_peak_rss()) {
    const int64_t peak = peak_rss_bytes();
    ::munmap(memory, kSize);
    ASSERT_TRUE(restart_peak_rss());
    EXPECT_LT(peak_rss_bytes(), peak - kSize / 4);
  } else {
    ::munmap(memory, kSize);
  }
}

TEST(ProcessMemory, TellsFilesApart) {
  const ScratchFolder scratch;
  const std::filesystem::path path = std::filesystem::canonical(scratch.path()) / "weights";
  std::ofstream(path) << std::string(8 * kMib, 'x') << std::flush;
  const MappedFile file = MappedFile::open(path);
  const std::filesystem::path files[] = {path};
  EXPECT_TRUE(tells_page_cache(path));
  EXPECT_LT(process_memory(files).files, kMib);  // mapped, not touched
  const std::span<const std::byte> all[] = {file.bytes()};
  EXPECT_EQ(resident_bytes(all), 8 * kMib);  // just written: in the page cache
  unsigned sum = 0;
  for (size_t i = 0; i < file.bytes().size(); i += 4096)
    sum += static_cast<unsigned>(file.bytes()[i]);
  EXPECT_EQ(sum, 2048u * 'x');
  EXPECT_EQ(process_memory(files).files, 8 * kMib);
}

}  // namespace
}  // namespace lapidary
