// Ends streamed text before the first stop string in it.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lapidary {

// Text goes in by pieces and comes out as soon as it cannot be part of a stop string any more. The
// string that is complete first ends the text, the longest where several end at the same byte: what
// comes out, joined, does not depend on how the text was cut into pieces. Strings that are UTF-8
// are only found, and text is only held back, at the boundaries of characters.
class StopMatcher {
 public:
  // No string may be empty.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that is certain now. Nothing comes any more once stopped().
  std::string put(std::string_view piece) {
    if (stopped_) return "";
    held_ += piece;
    size_t first = std::string::npos, end = std::string::npos;
    for (const std::string& stop : stops_) {
      const size_t at = held_.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < first)) {
        first = at;
        end = at + stop.size();
      }
    }
    stopped_ = first != std::string::npos;
    std::string certain = held_.substr(0, stopped_ ? first : held_.size() - uncertain());
    held_.erase(0, certain.size());
    return certain;
  }

  // The rest, once the text is over.
  std::string finish() { return stopped_ ? "" : std::exchange(held_, ""); }

  bool stopped() const { return stopped_; }

 private:
  // Bytes at the end of what is held that may be the beginning of a stop string.
  size_t uncertain() const {
    size_t longest = 0;
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    return longest;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lapidary
