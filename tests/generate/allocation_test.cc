// A decode step allocates no memory, but for the block of keys and values that a layer begins every
// kKvBlock positions.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/sampler.h"
#include "lapidary/session.h"

#include "kernels/kernels.h"

// Sanitizers count on operators of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LAPIDARY_OWN_OPERATORS 0
#else
#define LAPIDARY_OWN_OPERATORS 1
#endif

namespace {

std::atomic<int64_t> allocations{0};

[[maybe_unused]] void* counted(size_t size, size_t alignment) {
  ++allocations;
  void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

#if LAPIDARY_OWN_OPERATORS
void* operator new(size_t size) {
  return counted(size, alignof(std::max_align_t));
}
void* operator new(size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}
#endif

namespace lapidary {
namespace {

const std::filesystem::path kRoot = LAPIDARY_SOURCE_DIR;

// Allocations of one step for each session, at each of the positions [from, to).
std::vector<int64_t> decode(const Engine& engine, std::vector<Session>& sessions, int64_t from,
                            int64_t to) {
  std::vector<StepItem> items(sessions.size());
  std::vector<Token> next(sessions.size(), 5);
  std::vector<int64_t> counts;
  SamplerOptions greedy;
  greedy.temperature = 0;
  for (int64_t position = from; position < to; ++position) {
    for (size_t i = 0; i < sessions.size(); ++i) items[i] = {&sessions[i], {&next[i], 1}};
    const int64_t before = allocations;
    engine.step(items);
    for (size_t i = 0; i < sessions.size(); ++i)
      next[i] =
          sample(greedy, sessions[i].logits(), sessions[i].tokens(), engine.config().vocab_size);
    counts.push_back(allocations - before);
  }
  return counts;
}

TEST(Allocation, ADecodeStepAllocatesNothing) {
  if (!LAPIDARY_OWN_OPERATORS) GTEST_SKIP() << "sanitizers count on operators of their own";
  const std::pair<const char*, const char*> kCases[] = {
      {"models/tiny", ""},
      {"tests/golden/mlx-4bit-g64", ""},
      {"tests/golden/gemma2-gqa", ""},
      {"tests/golden/gemma3-v5", "tests/golden/adapters/plain"},
      {"tests/golden/mlx-4bit-g64", "tests/golden/adapters/mlx"}};
  for (const auto& [model, adapter] : kCases)
    for (const Compute compute : {Compute::kFast, Compute::kExact})
      for (const size_t count : {1, 3}) {
        EngineOptions options{.compute = compute, .threads = 2};
        if (*adapter != 0) options.adapters.push_back({kRoot / adapter});
        const auto engine = Engine::load(kRoot / model, options);
        // From inside a block past the first piece of attention to the end of that block.
        const int64_t start = kAttendPiece + 8, end = kAttendPiece + kKvBlock;
        std::vector<Session> sessions;
        for (size_t i = 0; i < count; ++i) {
          sessions.emplace_back(engine, 1000);
          sessions.back().append(std::vector<Token>(static_cast<size_t>(start - 4), 7));
        }
        decode(*engine, sessions, start - 4, start);  // once: what is kept grows to its size
        for (const int64_t made : decode(*engine, sessions, start, end))
          ASSERT_EQ(made, 0) << model << ", " << count << " sessions";
        EXPECT_GT(decode(*engine, sessions, end, end + 1)[0], 0) << "nobody counts";
      }
}

}  // namespace
}  // namespace lapidary
