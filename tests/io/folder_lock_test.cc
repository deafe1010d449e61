#include "io/folder_lock.h"

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/scratch_folder.h"

namespace lapidary {
namespace {

TEST(FolderLock, IsHeldByOneAtATime) {
  const ScratchFolder scratch;
  std::optional<FolderLock> first(scratch.path());
  try {
    const FolderLock second(scratch.path());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_EQ(std::string(e.what()),
              scratch.path().string() + ": another process is writing to it");
  }
  FolderLock moved = std::move(*first);
  first.reset();
  EXPECT_THROW(FolderLock{scratch.path()}, Error);
  moved = FolderLock();
  EXPECT_NO_THROW(FolderLock{scratch.path()});
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

}  // namespace
}  // namespace lapidary
