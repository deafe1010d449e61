#include "bench/meter.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/statistics.h"

namespace lapidary {

namespace {

constexpr int64_t kAhead = 1024;              // bytes: what the throw-away kernels did best with
constexpr int64_t kLine = 64;                 // bytes of a cache line
constexpr int64_t kSlice = int64_t{2} << 20;  // bytes read between two looks at the clock
constexpr int64_t kIterations = 4096;         // of a probe between two looks at the clock

}  // namespace

std::string ReadPattern::name() const {
  return fmt::format("read, {} stream{}{}", streams, streams == 1 ? "" : "s",
                     ahead > 0 ? ", prefetch" : "");
}

std::vector<ReadPattern> read_patterns() {
  std::vector<ReadPattern> list;
  for (const int streams : {1, 2, 4, 8})
    for (const int64_t ahead : {int64_t{0}, kAhead}) list.push_back({streams, ahead});
  return list;
}

Meter::Meter(int threads, int64_t memory)
    : pool_(threads > 0 ? threads : cpu_budget().threads()),
      bytes_(memory),
      cursors_(static_cast<size_t>(pool_.threads())) {
  // Every thread has a part of the memory, and every stream a row of the part, of whole slices.
  const int64_t unit = pool_.threads() * 8 * kLine;
  bytes_ = std::max<int64_t>(bytes_ / unit, 1) * unit;
  const auto size = static_cast<size_t>(bytes_);
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED)
    fail_resource("{} MiB to measure memory with: {}", bytes_ >> 20, std::strerror(errno));
  memory_ = static_cast<std::byte*>(mapped);
  madvise(mapped, size, MADV_HUGEPAGE);  // without them, address translation is measured as well
  pool_.parallel_for(bytes_ / kLine, [&](int64_t first, int64_t last, int) {
    std::memset(memory_ + first * kLine, 1, static_cast<size_t>((last - first) * kLine));
  });
}

Meter::~Meter() {
  munmap(memory_, static_cast<size_t>(bytes_));
}

// Units per second over all threads: each calls slice(thread), which returns the units it did,
// until the time is up.
template <class Fn>
double Meter::rate(int threads, double seconds, Fn&& slice) {
  std::atomic<int64_t> done = 0;
  const Stopwatch clock;
  auto work = [&](int64_t first, int64_t last, int) {
    for (int64_t thread = first; thread < last; ++thread) {
      int64_t mine = 0;
      do {
        mine += slice(static_cast<size_t>(thread));
      } while (clock.seconds() < seconds);
      done += mine;
    }
  };
  if (threads == 1) {
    work(0, 1, 0);
  } else {
    pool_.parallel_for(threads, work);
  }
  return static_cast<double>(done.load()) / clock.seconds();
}

double Meter::read(const ReadPattern& pattern, int threads, double seconds) {
  const int64_t part = bytes_ / pool_.threads(), row = part / pattern.streams;
  const int64_t count = std::min(kSlice / pattern.streams, row);
  std::atomic<uint64_t> sink = 0;  // keeps the reads from being left out
  const double result = rate(threads, seconds, [&](size_t thread) {
    int64_t& cursor = cursors_[thread];
    if (cursor + count > row) cursor = 0;
    sink ^= read_streams(memory_ + static_cast<int64_t>(thread) * part + cursor, row, count,
                         pattern.streams, pattern.ahead);
    cursor += count;
    return count * pattern.streams;
  });
  return result;
}

double Meter::compute(const ComputeProbe& probe, int threads, double seconds) {
  LAPIDARY_CHECK(probe.supported, "a probe of this CPU");
  return rate(threads, seconds, [&](size_t) {
    probe.run(kIterations);
    return kIterations * probe.ops;
  });
}

Units units_of(std::string_view isa) {
  // AVX2's kernels empty their sums of 16 bits as seldom as the width of the codes allows.
  if (isa == "avx2")
    return {find_compute_probe("avx2 f32"), find_compute_probe("avx2 int8, 16-bit sums")};
  const ComputeProbe* avx512 = find_compute_probe("avx512 f32");
  if (isa == "avx512")
    return {avx512, find_compute_probe("avx512 vnni int8"), find_compute_probe("avx512 bf16")};
  if (isa == "amx") return {avx512, find_compute_probe("amx int8"), find_compute_probe("amx bf16")};
  if (isa == "neon") return {find_compute_probe("neon f32"), find_compute_probe("neon int8")};
  return {};
}

Ceilings::Ceilings(int threads, int64_t memory) : meter_(threads, memory) {
  const std::vector<ReadPattern> patterns = read_patterns();
  std::vector<double> best(patterns.size());
  constexpr int kRounds = 2;
  for (int round = 0; round < kRounds; ++round)
    for (size_t i = 0; i < patterns.size(); ++i)
      best[i] = std::max(best[i], meter_.read(patterns[i], meter_.threads(), kSeconds));
  pattern_ =
      patterns[static_cast<size_t>(std::max_element(best.begin(), best.end()) - best.begin())];
}

void Ceilings::begin(std::string_view isa, const Work& work) {
  const Units units = units_of(isa);
  work_ = work;
  read_.clear();
  parts_.clear();
  if (units.rounded && work.rounded > 0) parts_.push_back({units.rounded, work.rounded});
  if (units.bf16 && work.bf16 > 0) parts_.push_back({units.bf16, work.bf16});
  const double floats = work.flops - work.rounded - work.bf16;
  if (units.floats && floats > 0) parts_.push_back({units.floats, floats});
}

void Ceilings::sample() {
  read_.push_back(meter_.read(pattern_, meter_.threads(), kSeconds));
  for (Part& part : parts_)
    part.samples.push_back(meter_.compute(*part.unit, meter_.threads(), kSeconds));
}

Ceiling Ceilings::ceiling() const {
  const double read = median(read_), reading = read > 0 ? work_.bytes / read : 0;
  double computing = 0;  // seconds: one part after the other
  std::string names;
  for (const Part& part : parts_) {
    computing += part.operations / median(part.samples);
    names += fmt::format("{}{}", names.empty() ? "" : " and ", part.unit->name);
  }
  if (reading <= 0 && computing <= 0) return {};
  if (reading >= computing) return {pattern_.name(), "GB/s", read / 1e9, 1 / reading};
  return {names, fmt::format("T{}/s", parts_.front().unit->unit), work_.flops / computing / 1e12,
          1 / computing};
}

}  // namespace lapidary
