// Which sequences of given data are learnt, and which others show what was not.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lapidary {

struct MembershipSplit {
  std::vector<int64_t> learnt, other;  // places of sequences
};

// `count` of either side, evenly spread, or as many as there are. documents: of each sequence, in
// order. They go to the sides in turn and whole, for who has learnt half of one knows something of
// the other; only of a single document its sequences go in turn.
MembershipSplit split_members(std::span<const int64_t> documents, int64_t count);

}  // namespace lapidary
