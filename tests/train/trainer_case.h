// A short training of the built-in model, for tests.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/train.h"

#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr const char* kText =
    "The lapidary cuts the stone along its grain, turns it to the light, and looks. What was dull "
    "shows a fire that nobody put there. He says that he adds nothing; he only takes away what is "
    "in the way of the light, a little at a time, and stops before too much of it is gone.";

std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The tensors of the state, whatever the step in its name.
std::string state_of(const fs::path& run) {
  for (const auto& entry : fs::directory_iterator(run / "state"))
    if (entry.path().extension() == ".safetensors") return contents(entry.path());
  return {};
}

class TrainerTest : public ::testing::TestWithParam<TrainMethod> {
 protected:
  TrainerTest() { std::ofstream(folder_.path() / "text.txt") << kText; }

  TrainOptions options(const std::string& run) const {
    TrainOptions o{.model = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny",
                   .data = folder_.path() / "text.txt",
                   .run = folder_.path() / run};
    o.method = GetParam();
    o.iterations = 8;
    o.batch_size = 2;
    o.sequence_length = 32;
    o.learning_rate = 2e-3;
    o.schedule = "constant";
    o.rank = 4;
    o.reset_every = 3;
    o.merge_every = 3;
    o.threads = 2;
    return o;
  }

  ScratchFolder folder_;
};

}  // namespace
}  // namespace lapidary
