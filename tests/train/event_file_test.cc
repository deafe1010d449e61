#include "train/event_file.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "io/test_files.h"

namespace lapidary {
namespace {

uint32_t masked(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
T read(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

TEST(EventFile, TheChecksumIsThatOfItsStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
}

TEST(EventFile, RecordsHaveALengthAnEventAndTheirChecksums) {
  const ScratchFolder folder;
  {
    EventFile file(folder.path(), 290);
    const std::vector<std::pair<std::string_view, double>> scalars = {{"loss", 2.5}, {"lr", 0.5}};
    file.add(300, scalars);
  }
  ASSERT_EQ(folder.names().size(), 1u);
  EXPECT_TRUE(folder.names()[0].starts_with("events.out.tfevents."));
  const std::string bytes = folder.read(folder.names()[0]);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = read<uint64_t>(bytes, at);
    ASSERT_EQ(read<uint32_t>(bytes, at + 8), masked(bytes.substr(at, 8)));
    events.push_back(bytes.substr(at + 12, length));
    ASSERT_EQ(read<uint32_t>(bytes, at + 12 + length), masked(events.back()));
    at += 16 + length;
  }
  ASSERT_EQ(events.size(), 3u);
  // wall_time, then file_version = 3: 13 bytes.
  EXPECT_EQ(events[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  // step = 2: 290; session_log = 7 with a status = 1 that says START = 1.
  EXPECT_EQ(events[1].substr(9), "\x10\xa2\x02\x3a\x02\x08\x01");
  // step = 2: 300 as a varint; summary = 5, with a value = 1 of a tag = 1 and a simple_value = 2.
  const std::string value = std::string("\x0a\x04loss\x15") + std::string("\0\0\x20\x40", 4);
  const std::string other = std::string("\x0a\x02lr\x15") + std::string("\0\0\0\x3f", 4);
  EXPECT_EQ(events[2].substr(9), "\x10\xac\x02\x2a\x18\x0a\x0b" + value + "\x0a\x09" + other);
}

}  // namespace
}  // namespace lapidary
