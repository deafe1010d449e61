#include "lapidary/bench.h"

#include "base/fail.h"
#include "bench/meter.h"

namespace lapidary {

namespace {

// A limit and how to take a sample of it, in its unit.
struct Measurement {
  Limit limit;
  std::function<double(Meter&)> sample;
};

std::vector<Measurement> measurements(int threads, double seconds) {
  std::vector<int> counts{1};
  if (threads > 1) counts.push_back(threads);
  std::vector<Measurement> list;
  for (const int count : counts) {
    for (const ReadPattern& pattern : read_patterns())
      list.push_back({{.name = pattern.name(),
                       .isa = "",
                       .what = pattern.ahead > 0
                                   ? fmt::format("software prefetch {} bytes ahead", pattern.ahead)
                                   : "the hardware prefetches",
                       .unit = "GB/s",
                       .threads = count},
                      [=](Meter& meter) { return meter.read(pattern, count, seconds) / 1e9; }});
    for (const ComputeProbe& probe : compute_probes())
      if (probe.supported)
        list.push_back({{.name = std::string(probe.name),
                         .isa = std::string(probe.isa),
                         .what = std::string(probe.instruction),
                         .unit = fmt::format("T{}/s", probe.unit),
                         .threads = count},
                        [=, probe = &probe](Meter& meter) {
                          return meter.compute(*probe, count, seconds) / 1e12;
                        }});
  }
  return list;
}

}  // namespace

std::vector<Limit> measure_limits(const LimitOptions& options, const Watch& watch) {
  if (options.rounds < 1) fail_usage("rounds: {} given, expected 1 or more", options.rounds);
  Meter meter(options.threads, options.memory);
  std::vector<Measurement> list = measurements(meter.threads(), options.seconds);
  std::erase_if(list, [&](const Measurement& m) {
    return m.limit.name.find(options.filter) == std::string::npos;
  });
  if (list.empty()) fail_usage("--filter: no limit has '{}' in its name", options.filter);
  int64_t done = 0;
  const int64_t total = std::ssize(list) * options.rounds;
  for (int round = 0; round < options.rounds; ++round)
    for (Measurement& m : list) {
      if (watch.stop.stop_requested()) break;
      m.limit.samples.push_back(m.sample(meter));
      watch.report(++done, total);
    }
  std::vector<Limit> limits;
  for (Measurement& m : list)
    if (!m.limit.samples.empty()) limits.push_back(std::move(m.limit));
  return limits;
}

}  // namespace lapidary
