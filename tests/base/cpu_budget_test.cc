#include "base/cpu_budget.h"

#include <fstream>

#include <gtest/gtest.h>

#include "base/scratch_folder.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

class Cgroups : public ::testing::Test {
 protected:
  void write(const fs::path& file, const std::string& text) {
    fs::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  }
  const ScratchFolder scratch;
  const fs::path& root = scratch.path();
};

TEST_F(Cgroups, TheLeastLimitOnTheWayUpCounts) {
  write("user/session/cpu.max", "max 100000\n");
  write("user/cpu.max", "150000 100000\n");
  write("cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(read_cgroup_cores(root, "0::/user/session\n"), 1.5);
  EXPECT_DOUBLE_EQ(read_cgroup_cores(root, "0::/elsewhere\n"), 4);
}

TEST_F(Cgroups, AContainerSeesItsOwnGroupAtTheRoot) {
  write("cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(read_cgroup_cores(root, "0::/\n"), 0.5);
  EXPECT_DOUBLE_EQ(read_cgroup_cores(root, "0::/docker/of/the/host\n"), 0.5);
}

TEST_F(Cgroups, VersionOneIsReadToo) {
  write("cpu/box/cpu.cfs_quota_us", "250000\n");
  write("cpu/box/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(read_cgroup_cores(root, "5:memory:/box\n4:cpu,cpuacct:/box\n"), 2.5);
  write("cpu/box/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(read_cgroup_cores(root, "4:cpu,cpuacct:/box\n"), 0);
}

TEST_F(Cgroups, NothingToReadIsNoLimit) {
  EXPECT_EQ(read_cgroup_cores(root, ""), 0);
  EXPECT_EQ(read_cgroup_cores(root, "0::/a\nnonsense\n"), 0);
}

TEST(CpuBudget, ThreadsAreWholeCoresAndAtLeastOne) {
  EXPECT_EQ((CpuBudget{8, 4, 0}).threads(), 4);
  EXPECT_EQ((CpuBudget{8, 4, 2.5}).threads(), 2);
  EXPECT_EQ((CpuBudget{8, 4, 0.5}).threads(), 1);
  EXPECT_EQ((CpuBudget{8, 4, 16}).threads(), 4);
  EXPECT_EQ((CpuBudget{8, 4, 0.5}).explanation(),
            "8 allowed CPUs, 4 physical cores, 0.5 cores by the control group");
  EXPECT_GE(cpu_budget().threads(), 1);
}

}  // namespace
}  // namespace lapidary
