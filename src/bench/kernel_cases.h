// What `bench kernels` checks and times: cases, each of which uses one entry of a kernel table
// through the operation that the model calls it by.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lapidary/bench.h"

#include "tensor/ops.h"

namespace lapidary {

struct KernelCase {
  std::string op;  // the entry's name: "matmul"
  std::string shape;
  Work work;  // of one call of what prepare() returns
  // Whether its data are more than the caches hold, as weights are; else only arithmetic limits it.
  bool from_memory = false;
  // Results at sizes that nothing divides, from fixed data: to be compared between tables.
  std::function<std::vector<float>(Executor&)> sample;
  // Makes the data of `shape`, and returns the operation on them.
  std::function<std::function<void(Executor&)>()> prepare;
};

// Of the entries that the table has. The shapes are those of Gemma 3 1B; for the definition, which
// is slow, matrices have fewer rows.
std::vector<KernelCase> kernel_cases(const Kernels& kernels, int threads);

// The most that a table may differ from the definition: the tables sum in f32, in orders of their
// own, and are near 1e-7; a wrong lane or a missing term is far above.
constexpr double kKernelErrorBound = 1e-5;

// What the case gives on a table, beside what it gives by the definition.
KernelResult check_kernel(const KernelCase& c, Executor& definition, Executor& table);

}  // namespace lapidary
