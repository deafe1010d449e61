// What the readers of the kinds of files make of them.
#pragma once

#include <memory>
#include <vector>

#include "train/data.h"

namespace lapidary {

// A sequence with what counts in it.
struct CountedSequence {
  Sequence sequence;
  int64_t targets = 0;
};

struct ReadSource {
  std::shared_ptr<const DocumentSource> source;
  std::vector<CountedSequence> sequences;  // in the order of the documents
  DataReport report;                       // of the documents
  uint64_t fingerprint = 0;
};

// Throw as open_data.
ReadSource read_jsonl(const std::filesystem::path& path, const Tokenizer& tokenizer,
                      const DataOptions& options, ThreadPool& pool, const Watch& watch);
ReadSource read_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                     const DataOptions& options, ThreadPool& pool, const Watch& watch);

// Bytes that are read at once; what is checked in parallel between two looks at `watch`.
inline constexpr int64_t kReadBytes = int64_t{4} << 20;

}  // namespace lapidary
