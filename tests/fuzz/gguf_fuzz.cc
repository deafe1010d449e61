// Any bytes: parse_gguf either throws Error or gives tensors that lie in them, apart and aligned;
// and what they say of a model is a configuration and a tokenizer, or an Error again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lapidary/error.h"

#include "gemma/gguf_model.h"
#include "generate/gguf_vocabulary.h"
#include "io/gguf.h"

namespace {

void expect_one_line(const lapidary::Error& e) {
  if (std::string(e.what()).find('\n') != std::string::npos) std::abort();
}

void read_model(const lapidary::GgufContents& contents) {
  try {
    const lapidary::Config config = lapidary::read_gguf_config(contents, "fuzz");
    if (config.num_hidden_layers < 1 || config.vocab_size < 1) std::abort();
  } catch (const lapidary::Error& e) {
    expect_one_line(e);
  }
  try {
    const auto end = lapidary::read_gguf_generation_config(contents, "fuzz");
    if (end.eos_token_id.empty()) std::abort();
    if (const auto tokenizer = lapidary::read_gguf_vocabulary(contents, "fuzz"))
      if (tokenizer->decode(tokenizer->encode("a <bos> b"), true) != "a <bos> b") std::abort();
  } catch (const lapidary::Error& e) {
    expect_one_line(e);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const lapidary::GgufContents contents = lapidary::parse_gguf(bytes, "fuzz");
    size_t total = 0;
    unsigned sum = 0;
    for (const lapidary::GgufTensor& tensor : contents.tensors) {
      const auto offset = static_cast<size_t>(tensor.bytes.data() - bytes.data());
      if (offset > size || tensor.bytes.size() > size - offset || tensor.bytes.empty())
        std::abort();
      const lapidary::GgufTensorDeclaration again{tensor.name, tensor.type, tensor.shape};
      if (static_cast<size_t>(again.byte_size()) != tensor.bytes.size()) std::abort();
      for (const std::byte b : tensor.bytes) sum += std::to_integer<unsigned>(b);
      if (contents.find_tensor(tensor.name) != &tensor) std::abort();
      total += tensor.bytes.size();
    }
    for (const auto& [key, value] : contents.metadata)
      if (contents.find(key) != &value) std::abort();
    if (total > size || (sum == 1u && total == 0)) std::abort();
    read_model(contents);
  } catch (const lapidary::Error& e) {
    expect_one_line(e);
  }
  return 0;
}
