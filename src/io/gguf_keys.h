// The metadata of a GGUF file, asked for by key and kind of value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf.h"

namespace lapidary {

// Looks keys up for messages that name `where`, the key, what was found and what was expected: all
// that is wrong throws Error{kInput}. Points into `contents`, which must outlive it.
class GgufKeys {
 public:
  GgufKeys(const GgufContents& contents, std::string where)
      : contents_(&contents), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  bool has(std::string_view key) const { return contents_->find(key) != nullptr; }

  // Of any whole type, within [least, most].
  int64_t integer(std::string_view key, int64_t least, int64_t most) const;
  std::optional<int64_t> find_integer(std::string_view key, int64_t least, int64_t most) const;
  // Of any type of numbers; finite.
  std::optional<double> find_number(std::string_view key) const;
  const std::string& string(std::string_view key) const;
  std::optional<bool> find_boolean(std::string_view key) const;
  // Elements must be of the very type: std::string, float, int32_t.
  template <class T>
  const std::vector<T>& list(std::string_view key) const;

  [[noreturn]] void fail_key(std::string_view key, const std::string& problem) const;

 private:
  const GgufValue& value(std::string_view key) const;  // fails when it is missing

  const GgufContents* contents_;
  std::string where_;
};

}  // namespace lapidary
