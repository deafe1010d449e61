// A matrix encoded in memory, to compute with before it is written.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "generate/row_stream.h"
#include "generate/storage.h"
#include "kernels/kernels.h"

namespace lapidary {

class EncodedMatrix {
 public:
  // `encoder` is one for `storage`.
  EncodedMatrix(const RowSource& source, const RowEncoder& encoder, const Storage& storage,
                ThreadPool& pool);

  const WeightMatrix& matrix() const { return matrix_; }

 private:
  std::vector<std::vector<std::byte>> parts_;
  WeightMatrix matrix_;  // points into parts_, whose memory stays where it is
};

}  // namespace lapidary
