#include "train/event_file.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

#include <fmt/format.h>

#include "base/fail.h"

namespace lapidary {

namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}

// Little-endian bytes of a number.
template <class T>
std::string bytes_of(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// Protobuf's wire format: a field's number and type, then its value.
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}
std::string field(int number, WireType type, std::string_view value) {
  std::string bytes = varint(static_cast<uint64_t>(number << 3 | type));
  if (type == kBytes) bytes += varint(value.size());
  return bytes.append(value);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 255];
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder, int64_t from) {
  for (auto time = static_cast<int64_t>(now()); path_.empty() || std::filesystem::exists(path_);
       ++time)
    path_ = folder / fmt::format("events.out.tfevents.{}.lapidary", time);
  file_.open(path_, std::ios::binary);
  // Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
  write(field(1, kFixed64, bytes_of(now())) + field(3, kBytes, "brain.Event:2"));
  // SessionLog: status = 1, of which START = 1: readers drop what they have from that step on.
  write(field(1, kFixed64, bytes_of(now())) +
        field(2, kVarint, varint(static_cast<uint64_t>(from))) +
        field(7, kBytes, field(1, kVarint, varint(1))));
}

void EventFile::add(int64_t step, std::span<const std::pair<std::string_view, double>> scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)  // Summary.Value: tag = 1, simple_value = 2
    summary += field(
        1, kBytes, field(1, kBytes, tag) + field(2, kFixed32, bytes_of(static_cast<float>(value))));
  write(field(1, kFixed64, bytes_of(now())) +
        field(2, kVarint, varint(static_cast<uint64_t>(step))) + field(5, kBytes, summary));
}

void EventFile::write(std::string_view event) {
  const std::string length = bytes_of(uint64_t{event.size()});
  file_ << length << bytes_of(masked_crc(length)) << event << bytes_of(masked_crc(event));
  file_.flush();
  if (!file_) fail_resource("{}: cannot write", path_.string());
}

}  // namespace lapidary
