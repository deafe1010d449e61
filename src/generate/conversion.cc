#include "generate/conversion.h"

#include <algorithm>

#include "base/fail.h"
#include "base/system.h"
#include "generate/convert_check.h"

namespace lapidary {

namespace {

// Measured: the program and what it knows of a model; and vocabularies of 256 to 262 thousand
// tokens while they are read, of which a tokenizer.json of 33 MB takes 85 MiB, one of 17 MB takes
// 57 MiB, and a tokenizer.model 53 MiB.
constexpr int64_t kProgramBytes = int64_t{3} << 20;
constexpr double kJsonBytesPerByte = 1.86;
constexpr int64_t kJsonBytesPerToken = 104;
constexpr int64_t kModelBytesPerToken = 211;
constexpr int64_t kGgufBytesPerToken = 273;

}  // namespace

void ConversionMemory::add_tensor(int64_t rows, int64_t cols, const RowEncoder& encoder) {
  largest_stage_ = std::max(largest_stage_, RowStream::bytes(rows, cols, encoder, threads_));
}

void ConversionMemory::add_weights_check(const Config& config) {
  const int64_t cols = std::max({config.hidden_size, config.intermediate_size, config.q_dim()});
  largest_stage_ = std::max(largest_stage_, 2 * threads_ * cols * int64_t{sizeof(float)});
}

void ConversionMemory::add_logits_check(const Config& config) {
  largest_stage_ = std::max(largest_stage_, check_logits_bytes(config));
}

void ConversionMemory::add_tokenizer(const std::filesystem::path& folder, int64_t tokens) {
  std::error_code absent;
  const auto json =
      static_cast<double>(std::filesystem::file_size(folder / "tokenizer.json", absent));
  const int64_t bytes =
      absent ? kModelBytesPerToken * tokens
             : static_cast<int64_t>(kJsonBytesPerByte * json) + kJsonBytesPerToken * tokens;
  largest_stage_ = std::max(largest_stage_, bytes);
}

void ConversionMemory::add_gguf_vocabulary(int64_t tokens) {
  largest_stage_ = std::max(largest_stage_, kGgufBytesPerToken * tokens);
}

int64_t ConversionMemory::bytes() const {
  return kProgramBytes + largest_stage_;
}

void ConversionMemory::check(const std::filesystem::path& what) const {
  const int64_t available = available_memory_bytes();
  if (bytes() > available)
    fail_resource("{}: converting it needs {} MiB, {} MiB of memory are available", what.string(),
                  bytes() >> 20, available >> 20);
}

void ConversionProgress::add(int64_t weights) {
  watch_.throw_if_stopped();
  done_ += weights;
  watch_.report(done_, total_);
}

ConversionCheck checked(Staging& staging, const std::function<ConversionCheck()>& check) {
  try {
    return check();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInput) throw;
    staging.keep();
    throw Error(ErrorKind::kInput, fmt::format("the result failed its check: {}", e.what()),
                fmt::format("it is left in {} until the next conversion to that place; --no-check "
                            "puts it in place unchecked",
                            staging.path().string()));
  }
}

}  // namespace lapidary
