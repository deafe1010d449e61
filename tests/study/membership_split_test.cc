// Sequences that are learnt, and those that are not.
#include "study/membership_split.h"

#include <gtest/gtest.h>

namespace lapidary {
namespace {

using Places = std::vector<int64_t>;

TEST(MembershipSplit, KeepsDocumentsWhole) {
  const Places documents = {0, 0, 1, 3, 3, 3, 4, 5};  // nothing of 2 counted
  const MembershipSplit all = split_members(documents, 10);
  EXPECT_EQ(all.learnt, (Places{0, 1, 3, 4, 5, 7}));
  EXPECT_EQ(all.other, (Places{2, 6}));
  const MembershipSplit two = split_members(documents, 2);
  EXPECT_EQ(two.learnt, (Places{0, 4}));  // spread over what there is
  EXPECT_EQ(two.other, (Places{2, 6}));
}

TEST(MembershipSplit, DealsOutTheSequencesOfASingleDocument) {
  const MembershipSplit split = split_members(Places(9, 4), 3);
  EXPECT_EQ(split.learnt, (Places{0, 2, 6}));
  EXPECT_EQ(split.other, (Places{1, 3, 5}));
  EXPECT_TRUE(split_members({}, 3).learnt.empty());
}

}  // namespace
}  // namespace lapidary
