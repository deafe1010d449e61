#include "train/schedule.h"

#include <string>

#include <gtest/gtest.h>

#include "io/test_files.h"

namespace lapidary {
namespace {

TEST(Schedule, ConstantAfterTheWarmUp) {
  const Schedule s({.kind = ScheduleKind::kConstant, .lr = 0.5, .steps = 10, .warmup_steps = 4});
  EXPECT_EQ(s.lr(0), 0);
  EXPECT_EQ(s.lr(1), 0.125);
  EXPECT_EQ(s.lr(4), 0.5);
  EXPECT_EQ(s.lr(9), 0.5);
  EXPECT_EQ(s.lr(1000), 0.5);
}

TEST(Schedule, LinearFallsToTheRatio) {
  const Schedule s(
      {.kind = ScheduleKind::kLinear, .lr = 1, .steps = 12, .warmup_steps = 2, .min_ratio = 0.5});
  EXPECT_EQ(s.lr(1), 0.5);
  EXPECT_EQ(s.lr(2), 1);
  EXPECT_DOUBLE_EQ(s.lr(7), 0.75);
  EXPECT_DOUBLE_EQ(s.lr(11), 0.55);
  EXPECT_DOUBLE_EQ(s.lr(12), 0.5);
  EXPECT_DOUBLE_EQ(s.lr(13), 0.5);
}

TEST(Schedule, CosineWithoutAWarmUpBeginsAtTheTop) {
  const Schedule s({.kind = ScheduleKind::kCosine, .lr = 2, .steps = 6, .min_ratio = 0.1});
  EXPECT_DOUBLE_EQ(s.lr(0), 2);
  EXPECT_DOUBLE_EQ(s.lr(2), 2 * (0.1 + 0.9 * 0.75));  // cos 60 degrees
  EXPECT_DOUBLE_EQ(s.lr(3), 2 * (0.1 + 0.9 * 0.5));
  EXPECT_DOUBLE_EQ(s.lr(4), 2 * (0.1 + 0.9 * 0.25));
  EXPECT_DOUBLE_EQ(s.lr(6), 0.2);
}

// 14 steps of which 2 warm up, restarts at 7: the cosine spans 12 steps, 15 degrees each.
TEST(Schedule, JaggedClimbsBackToTheCosineOfTheRestart) {
  const Schedule s({.kind = ScheduleKind::kJaggedCosine,
                    .lr = 1,
                    .steps = 14,
                    .warmup_steps = 2,
                    .min_ratio = 0.2,
                    .restart_every = 7,
                    .restart_warmup = 4});
  const auto cosine = [](double cos) { return 0.2 + 0.8 * (1 + cos) / 2; };
  const double at_restart = cosine(0.25881904510252074);  // 75 degrees
  EXPECT_EQ(s.lr(1), 0.5);
  EXPECT_EQ(s.lr(2), 1);
  EXPECT_DOUBLE_EQ(s.lr(6), cosine(0.5));
  EXPECT_EQ(s.lr(7), 0);
  EXPECT_DOUBLE_EQ(s.lr(8), at_restart / 4);
  EXPECT_DOUBLE_EQ(s.lr(10), at_restart * 3 / 4);
  EXPECT_DOUBLE_EQ(s.lr(11), cosine(-0.7071067811865475));  // 135 degrees
  EXPECT_DOUBLE_EQ(s.lr(14), 0.2);
  for (int64_t step = 0; step < 16; ++step) EXPECT_EQ(s.restarts_at(step), step == 7);
}

TEST(Schedule, JaggedDoesNotRestartWithinTheFirstWarmUp) {
  const Schedule s({.kind = ScheduleKind::kJaggedCosine,
                    .lr = 1,
                    .steps = 40,
                    .warmup_steps = 15,
                    .restart_every = 10,
                    .restart_warmup = 8});
  EXPECT_DOUBLE_EQ(s.lr(10), 10.0 / 15);
  EXPECT_DOUBLE_EQ(s.lr(14), 14.0 / 15);
  EXPECT_DOUBLE_EQ(s.lr(15), 5.0 / 8);  // of the restart at 10, whose target is the top
  EXPECT_EQ(s.lr(20), 0);
}

TEST(Schedule, SaysWhatCannotBe) {
  const auto error = [](ScheduleOptions options) { return error_of([&] { Schedule{options}; }); };
  EXPECT_EQ(error({.steps = 0}), "--iters: 0 given, expected 1 or more");
  EXPECT_EQ(error({.lr = 0, .steps = 1}), "--learning-rate: 0 given, expected more than 0");
  EXPECT_EQ(error({.steps = 5, .warmup_steps = 6}),
            "--warmup: 6 given, expected 0 to the 5 steps there are");
  EXPECT_EQ(error({.steps = 5, .min_ratio = 1.5}), "--min-lr-ratio: 1.5 given, expected 0 to 1");
  ScheduleOptions jagged{.kind = ScheduleKind::kJaggedCosine, .steps = 100};
  EXPECT_EQ(error(jagged), "--reset-every: 0 given, expected 1 or more steps");
  jagged.restart_every = 30;
  EXPECT_EQ(error(jagged), "--reset-every: 30 does not divide the 100 steps");
  jagged.restart_every = 50;
  EXPECT_EQ(error(jagged),
            "--reset-warmup: 50 given, expected 0 or more and less than the 50 steps between "
            "restarts");
  EXPECT_EQ(error_of([] { schedule_kind("cos"); }),
            "--schedule: 'cos' given, expected constant, linear, cosine or jagged");
  EXPECT_EQ(schedule_kind(name_of(ScheduleKind::kJaggedCosine)), ScheduleKind::kJaggedCosine);
}

}  // namespace
}  // namespace lapidary
