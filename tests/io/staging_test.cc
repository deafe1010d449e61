#include "io/staging.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/scratch_folder.h"
#include "io/output_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

class StagingTest : public testing::Test {
 protected:
  // Makes a folder of two files that say `text`.
  void make(const std::string& text) {
    Staging staging(target_);
    for (const char* name : {"a", "b"}) std::ofstream(staging.path() / name) << text;
    staging.commit();
  }

  ScratchFolder scratch_;
  fs::path target_ = scratch_.path() / "out";
};

TEST_F(StagingTest, PutsAFileInPlaceOfAnother) {
  for (const std::string text : {"old", "new"}) {
    Staging staging(target_ / "", Staging::Kind::kFile);
    std::ofstream(staging.path()) << text;
    staging.commit();
    EXPECT_EQ(scratch_.read("out"), text);
  }
  EXPECT_EQ(scratch_.names(), std::vector<std::string>{"out"});
}

// Whenever the kill comes, the target is the old one or the new one, and the next can be made.
TEST_F(StagingTest, AKillLeavesWhatTheNextRemoves) {
  make("old");
  const auto child_killed_after = [&](int microseconds) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (;;) make("new");
      } catch (...) {
        ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(microseconds));
    ::kill(child, SIGKILL);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child could not go on";
  };
  for (int i = 0; i < 200; ++i) {
    child_killed_after(37 * i % 5000);
    const std::string a = scratch_.read("out/a"), b = scratch_.read("out/b");
    EXPECT_TRUE((a == "old" || a == "new") && a == b);
    ASSERT_NO_THROW(make("old")) << "after kill " << i;
    ASSERT_EQ(scratch_.read("out/a"), "old");
    ASSERT_EQ(scratch_.names(), std::vector<std::string>{"out"});
  }
}

TEST_F(StagingTest, LeavesOthersFoldersAlone) {
  const fs::path other = scratch_.path() / "out.partial";
  fs::create_directory(other);
  std::ofstream(other / "mine") << "kept";
  try {
    make("new");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_EQ(std::string(e.what()),
              other.string() + ": is there already, and was not made by lapidary");
  }
  EXPECT_TRUE(fs::exists(other / "mine"));
}

// What an OutputFile leaves when its process is killed.
TEST_F(StagingTest, TemporariesAreKnown) {
  const fs::path folder = scratch_.path(), below = folder / "below";
  EXPECT_TRUE(holds_only_temporaries(folder));
  scratch_.write("options.json.tmp-4711-0", "half");
  EXPECT_TRUE(holds_only_temporaries(folder));
  for (const char* name : {"mine.tmp", "mine.tmp-1", "tmp-1-1-mine"}) {
    scratch_.write(name, "kept");
    EXPECT_FALSE(holds_only_temporaries(folder)) << name;
  }
  fs::create_directory(below);
  std::ofstream(below / "result.json.tmp-12-75") << "half";
  remove_temporaries(folder);
  EXPECT_EQ(scratch_.names(),
            (std::vector<std::string>{"below", "mine.tmp", "mine.tmp-1", "tmp-1-1-mine"}));
  EXPECT_TRUE(fs::is_empty(below));
  remove_temporaries(folder / "none");
}

}  // namespace
}  // namespace lapidary
