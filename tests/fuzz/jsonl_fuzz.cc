// Any bytes as lines of training data, and as plain text: a record is refused with one line that
// says where, or becomes a document; chunks make up the text.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "lapidary/error.h"

#include "text/test_tokenizers.h"
#include "train/document.h"
#include "train/text_chunks.h"

namespace {

void check_line(std::string_view line, const lapidary::Tokenizer& tokenizer) {
  try {
    const lapidary::Record record = lapidary::parse_record(line, "fuzz:1");
    for (const bool chat : {false, true}) {
      const lapidary::Document document =
          lapidary::make_document(record, tokenizer, {.chat_completion = chat}, "fuzz:1");
      if (document.tokens.size() != document.counted.size()) std::abort();
      if (document.tokens.front() != tokenizer.bos() || document.counted.front() != 0) std::abort();
      if (document.counted.back() != 0 && document.tokens.back() != tokenizer.eos()) std::abort();
      for (const lapidary::Token id : document.tokens)
        if (id < 0 || id >= tokenizer.size()) std::abort();
    }
  } catch (const lapidary::Error& e) {
    const std::string message = e.what();
    if (!message.starts_with("fuzz:1: ") || message.find('\n') != std::string::npos) std::abort();
  }
}

void check_chunks(std::string_view text) {
  while (!text.empty()) {
    const size_t size = lapidary::first_chunk(text, true);
    if (size == 0 || size > text.size()) std::abort();
    if (size < text.size() && size < lapidary::kChunkBytes && text.find(' ') > size) std::abort();
    text.remove_prefix(size);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const lapidary::Tokenizer tokenizer = lapidary::tokenizer_of(lapidary::tiny_json());
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    check_line(text.substr(begin, end - begin), tokenizer);
    begin = end + 1;
  }
  check_chunks(text);
  return 0;
}
