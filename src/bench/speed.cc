#include <algorithm>
#include <ctime>

#include "lapidary/bench.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "bench/meter.h"
#include "bench/random_tokens.h"
#include "bench/work.h"

namespace lapidary {

namespace {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

std::string name_of(const SpeedTest& test) {
  return (test.prompt > 0 ? fmt::format("pp{}", test.prompt) : fmt::format("tg{}", test.gen)) +
         (test.depth > 0 ? fmt::format(" @ d{}", test.depth) : "");
}

std::vector<double> SpeedResult::samples_ts() const {
  std::vector<double> rates;
  for (const int64_t ns : samples_ns)
    rates.push_back(1e9 * static_cast<double>(test.tokens()) / static_cast<double>(ns));
  return rates;
}

struct SpeedBench::Impl {
  std::shared_ptr<const Engine> engine;
  SpeedOptions options;
  RandomTokens random;
  std::unique_ptr<Ceilings> ceilings;
  std::vector<Session> base;  // the sessions at the depth of the last test

  void reach(int64_t depth, int64_t batch, const Watch& watch);
  int64_t repeat_ns(const SpeedTest& test, const Watch& watch) const;
};

SpeedBench::SpeedBench(const std::shared_ptr<const Engine>& engine, const SpeedOptions& options)
    : impl_(new Impl{engine, options, RandomTokens(*engine), nullptr, {}}) {
  if (options.repetitions < 1) fail_usage("-r: {} given, expected 1 or more", options.repetitions);
  if (options.limits)
    impl_->ceilings = std::make_unique<Ceilings>(engine->threads(), options.memory);
}
SpeedBench::~SpeedBench() = default;

// Makes `base` the given number of sessions with `depth` tokens each.
void SpeedBench::Impl::reach(int64_t depth, int64_t batch, const Watch& watch) {
  if (std::ssize(base) != batch || base.front().length() > depth) {
    base.clear();
    for (int64_t i = 0; i < batch; ++i) base.emplace_back(engine, options.context);
  }
  std::vector<std::vector<Token>> tokens;
  std::vector<StepItem> items;
  tokens.reserve(base.size());
  for (Session& session : base) {
    const int64_t length = session.length();
    if (length == depth) continue;
    tokens.push_back(random.run(std::ssize(tokens), length, depth - length));
    items.push_back({&session, tokens.back()});
  }
  if (!items.empty()) engine->step(items, watch);
}

// Times one repetition, on forks of the sessions in `base`: they share what came before.
int64_t SpeedBench::Impl::repeat_ns(const SpeedTest& test, const Watch& watch) const {
  std::vector<Session> sessions;
  std::vector<std::vector<Token>> tokens;
  for (const Session& session : base) {
    tokens.push_back(random.run(std::ssize(sessions), test.depth, test.prompt + test.gen));
    sessions.push_back(session.fork());
  }
  const auto step = [&](size_t first, size_t count) {
    std::vector<StepItem> items;
    for (size_t i = 0; i < sessions.size(); ++i)
      items.push_back({&sessions[i], std::span(tokens[i]).subspan(first, count)});
    engine->step(items, Watch{{}, watch.stop});
  };
  const Stopwatch clock;
  if (test.prompt > 0) {
    step(0, static_cast<size_t>(test.prompt));
  } else {
    for (size_t i = 0; i < static_cast<size_t>(test.gen); ++i) step(i, 1);
  }
  return std::max<int64_t>(1, static_cast<int64_t>(clock.seconds() * 1e9));
}

SpeedResult SpeedBench::run(const SpeedTest& test, const Watch& watch) {
  Impl& s = *impl_;
  LAPIDARY_CHECK((test.prompt > 0) != (test.gen > 0) && test.batch > 0, "one of prompt and gen");
  SpeedResult result{.test = test, .time = utc_now(), .threads = s.engine->threads()};
  result.work = work_of({.config = s.engine->config(),
                         .parts = s.engine->parts(),
                         .kv_type = s.engine->kv_type(),
                         .rounds_activations = s.engine->compute() == Compute::kFast},
                        test);
  s.reach(test.depth, test.batch, watch);
  SpeedTest warm_up = test;  // a few steps are enough to touch the weights and the cache
  warm_up.gen = std::min<int64_t>(test.gen, 4);
  s.repeat_ns(warm_up, watch);
  if (s.ceilings) s.ceilings->begin(s.engine->isa(), result.work);
  const int repetitions = s.options.repetitions;
  try {
    for (int i = 0; i < repetitions; ++i) {
      if (s.ceilings) s.ceilings->sample();
      result.samples_ns.push_back(s.repeat_ns(test, watch));
      watch.report(i + 1, repetitions);
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInterrupted || result.samples_ns.empty()) throw;
  }
  if (s.ceilings) result.ceiling = s.ceilings->ceiling();
  return result;
}

}  // namespace lapidary
