// What the conversions to folders and to GGUF share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "lapidary/convert.h"
#include "lapidary/progress.h"

#include "gemma/load.h"
#include "generate/row_stream.h"
#include "io/staging.h"

namespace lapidary {

// Bytes at the peak of a conversion, besides pages of the files: the program, its buffers for the
// largest of the tensors, and then the check.
class ConversionMemory {
 public:
  explicit ConversionMemory(int threads) : threads_(threads) {}

  void add_tensor(int64_t rows, int64_t cols, const RowEncoder& encoder);
  // The checks of convert_check.h.
  void add_weights_check(const Config& config);
  void add_logits_check(const Config& config);
  // The vocabulary of a folder, or of a GGUF file that becomes one, while it is read.
  void add_tokenizer(const std::filesystem::path& folder, int64_t tokens);
  void add_gguf_vocabulary(int64_t tokens);

  int64_t bytes() const;
  // Throws Error{kResource} naming `what` when they are not there.
  void check(const std::filesystem::path& what) const;

 private:
  int threads_;
  int64_t largest_stage_ = 0;
};

// Counts the weights that the stages of a conversion have gone through.
class ConversionProgress {
 public:
  ConversionProgress(const Watch& watch, int64_t total) : watch_(watch), total_(total) {}
  // Throws Error{kInterrupted} once a stop was asked for.
  void add(int64_t weights);

 private:
  const Watch& watch_;
  int64_t total_;
  int64_t done_ = 0;
};

// The result of `check`. Where that throws an Error{kInput}, what was written failed the check: it
// stays under its temporary name, which the message then says.
ConversionCheck checked(Staging& staging, const std::function<ConversionCheck()>& check);

}  // namespace lapidary
