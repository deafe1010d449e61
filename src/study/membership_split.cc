#include "study/membership_split.h"

namespace lapidary {

namespace {

std::vector<int64_t> spread(const std::vector<int64_t>& places, int64_t count) {
  const int64_t size = std::ssize(places);
  if (size <= count) return places;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i)
    chosen.push_back(places[static_cast<size_t>(i * size / count)]);
  return chosen;
}

}  // namespace

MembershipSplit split_members(std::span<const int64_t> documents, int64_t count) {
  MembershipSplit split;
  const bool single = documents.empty() || documents.front() == documents.back();
  int64_t turn = 0;  // of a document, or of a sequence where there is a single one
  for (int64_t i = 0; i < std::ssize(documents); ++i) {
    const auto at = static_cast<size_t>(i);
    if (i > 0 && (single || documents[at] != documents[at - 1])) ++turn;
    (turn % 2 == 0 ? split.learnt : split.other).push_back(i);
  }
  return {spread(split.learnt, count), spread(split.other, count)};
}

}  // namespace lapidary
