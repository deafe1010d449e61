// TensorBoard's event files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace lapidary {

// Scalars by step, in the format of tf.summary: records of a length, a masked CRC-32C of it, an
// Event in protobuf's wire format, and its CRC. TensorBoard reads files while they grow.
class EventFile {
 public:
  // Makes a file events.out.tfevents.TIME.lapidary in the folder; a resumed run adds another, which
  // TensorBoard takes for the same run. `from` is the first step that it will have: what other
  // files have from there on is of steps that are taken again, and no longer shown. Throws
  // Error{kResource}.
  EventFile(const std::filesystem::path& folder, int64_t from);

  // One point of each curve.
  void add(int64_t step, std::span<const std::pair<std::string_view, double>> scalars);

 private:
  void write(std::string_view event);

  std::filesystem::path path_;
  std::ofstream file_;
};

// CRC-32C (Castagnoli), as in RFC 3720.
uint32_t crc32c(std::string_view bytes);

}  // namespace lapidary
