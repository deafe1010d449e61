#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "kernels/kernels.h"

namespace lapidary {
namespace {

class Dispatch : public ::testing::Test {
 protected:
  void TearDown() override { ::unsetenv("LAPIDARY_ISA"); }
};

TEST_F(Dispatch, LapidaryIsaForcesEachSupportedTable) {
  for (const Kernels* table : supported_kernels()) {
    ::setenv("LAPIDARY_ISA", std::string(table->isa).c_str(), 1);
    EXPECT_EQ(&best_kernels(), table);
  }
  ::unsetenv("LAPIDARY_ISA");
  EXPECT_EQ(&best_kernels(), supported_kernels().back());
}

TEST_F(Dispatch, AKnownTableThatThisCpuLacksIsAUsageError) {
  const auto answer = [](const std::string& isa) -> std::string {
    ::setenv("LAPIDARY_ISA", isa.c_str(), 1);
    try {
      return std::string(best_kernels().isa);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.what();
    }
  };
  const std::string message = answer("mmx");
  std::istringstream known(message.substr(message.rfind("there are") + 9));
  for (std::string isa; std::getline(known >> std::ws, isa, ',');) {
    const auto supported = supported_kernels();
    const bool listed = std::any_of(supported.begin(), supported.end(),
                                    [&](const Kernels* table) { return table->isa == isa; });
    EXPECT_EQ(answer(isa), listed ? isa : "LAPIDARY_ISA=" + isa + ": this CPU does not have it");
  }
}

TEST_F(Dispatch, UnknownInstructionSetIsAUsageErrorThatListsTheKnown) {
  ::setenv("LAPIDARY_ISA", "mmx", 1);
  try {
    best_kernels();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_EQ(
        std::string(e.what()).find("LAPIDARY_ISA=mmx: unknown instruction set; there are ref"), 0u);
  }
}

}  // namespace
}  // namespace lapidary
