// Any bytes: parse_safetensors either throws Error or gives views that lie in them, cover them and
// do not overlap.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "lapidary/error.h"

#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const lapidary::SafetensorsContents contents = lapidary::parse_safetensors(bytes, "fuzz");
    size_t total = 0;
    unsigned sum = 0;
    for (const lapidary::NamedTensor& tensor : contents.tensors) {
      const auto expected = tensor.view.elements() * lapidary::size_of(tensor.view.dtype);
      if (static_cast<size_t>(expected) != tensor.view.bytes.size()) std::abort();
      for (const std::byte b : tensor.view.bytes) sum += std::to_integer<unsigned>(b);
      if (contents.find(tensor.name) != &tensor.view) std::abort();
      total += tensor.view.bytes.size();
    }
    if (total > size || (sum == 1u && total == 0)) std::abort();
  } catch (const lapidary::Error& e) {
    if (std::string(e.what()).find('\n') != std::string::npos) std::abort();  // one line
  }
  return 0;
}
