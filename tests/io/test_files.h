// What the tests of files share: scratch folders, bytes of safetensors files, caught messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/scratch_folder.h"

namespace lapidary {

// The message of the Error that `action` throws, with the scratch folder's path taken out.
template <class Action>
std::string error_of(Action&& action, const std::string& take_out = "") {
  try {
    action();
  } catch (const Error& e) {
    std::string message = e.what();
    for (size_t at; !take_out.empty() && (at = message.find(take_out)) != std::string::npos;)
      message.erase(at, take_out.size());
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return "no error";
}

inline std::string length_bytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((length >> (8 * i)) & 0xff);
  return bytes;
}

// A safetensors file with this header and `data_size` bytes 0, 1, 2, … of data.
inline std::string safetensors_bytes(const std::string& header, size_t data_size) {
  std::string bytes = length_bytes(header.size()) + header;
  for (size_t i = 0; i < data_size; ++i) bytes += static_cast<char>(i);
  return bytes;
}

inline std::span<const std::byte> as_span(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace lapidary
