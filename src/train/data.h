// Documents to train on, read from disk when they are needed.
//
// A path is one of
//   * a file NAME.jsonl: a record a line (record.h);
//   * a folder with train.jsonl and, where there is one, valid.jsonl, as mlx-lm has it; a
//   test.jsonl
//     is not read;
//   * any other file: plain text, which is one document, cut into windows.
//
// Opening reads all of it once: every record is checked and encoded to count its tokens. What stays
// in memory is where each record lies (32 bytes) and how long it is (24 bytes a sequence).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "lapidary/progress.h"
#include "lapidary/tokenizer.h"
#include "lapidary/train.h"

#include "base/thread_pool.h"
#include "train/document.h"

namespace lapidary {

// What is done with a document that is longer than a sequence may be.
enum class LongDocuments : uint8_t {
  kRefuse,    // an error that counts them
  kTruncate,  // its first tokens are used
  kSplit,     // one sequence after another; each but the first has a <bos> put before
};
// "refuse", "truncate" or "split". Throws Error{kUsage}.
LongDocuments long_documents(std::string_view name);

struct DataOptions {
  int64_t sequence_length = 512;  // tokens, <bos> included; at least 2
  LongDocuments long_documents = LongDocuments::kRefuse;
  DocumentOptions documents = {};
  // Of the documents, how many are taken out for validation where there is no file for it: 0 for
  // none, else at least one, chosen by the seed. Of a text file it is the end.
  double valid_fraction = 0;
  uint64_t seed = 0;
};

// Where documents come from. Documents have numbers from 0.
class DocumentSource {
 public:
  virtual ~DocumentSource() = default;
  // May be called from several threads. Throws Error{kInput} naming file and line where the file is
  // no longer what it was.
  virtual Document read(int64_t document) const = 0;
};

// Part of a document, or all of it.
struct Sequence {
  int64_t document = 0;
  int64_t first = 0;   // its first token of the document's; above 0, a <bos> goes before it
  int64_t length = 0;  // tokens, with that <bos>
};

class Dataset {
 public:
  // The report's sequences, tokens and targets are those of `sequences`.
  Dataset(std::shared_ptr<const DocumentSource> source, std::vector<Sequence> sequences,
          const DataReport& report);

  int64_t size() const { return std::ssize(sequences_); }
  int64_t length(int64_t i) const { return sequences_[static_cast<size_t>(i)].length; }
  int64_t document(int64_t i) const { return sequences_[static_cast<size_t>(i)].document; }
  // Encodes the document again. Throws as DocumentSource::read.
  Document read(int64_t i) const;
  const DataReport& report() const { return report_; }

 private:
  std::shared_ptr<const DocumentSource> source_;
  std::vector<Sequence> sequences_;
  DataReport report_;
};

struct TrainingData {
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> valid;  // nullptr where there is none
  // Of all tokens and what of them counts: equal where the same files, tokenizer and options are.
  uint64_t fingerprint = 0;
  DataReport report = {};  // of both together
};

// The tokenizer must outlive what is returned. `watch` counts bytes. Throws Error{kInput}, naming
// file and line: what parse_record and make_document refuse, documents that are too long (with how
// many there are), no documents, nothing in them that counts; Error{kUsage} for options out of
// range or a fraction that leaves one side empty; Error{kInterrupted}.
TrainingData open_data(const std::filesystem::path& path, const Tokenizer& tokenizer,
                       const DataOptions& options, ThreadPool& pool, const Watch& watch = {});

}  // namespace lapidary
