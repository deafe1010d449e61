// The least bytes that a test must read and the operations it must do, from the model's shape. The
// formulas are in docs/performance.md.
#pragma once

#include <span>

#include "lapidary/bench.h"

namespace lapidary {

// What of a model decides that.
struct ModelWork {
  Config config;
  std::vector<ModelPart> parts;
  KvType kv_type = KvType::kBF16;
  bool rounds_activations = false;  // of products with quantised weights
};

// Per token of the test.
Work work_of(const ModelWork& model, const SpeedTest& test);

// Keys that the queries at positions first .. first + count - 1 of a layer see, together; `window`
// 0: all that came before.
int64_t keys_seen(int64_t first, int64_t count, int64_t window);

}  // namespace lapidary
