// Any bytes as a tokenizer.json: an Error or a tokenizer that keeps its promises.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/error.h"
#include "lapidary/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using lapidary::ControlText;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = lapidary::Tokenizer::from_json(bytes, "fuzz.json");
    // Pieces of the file are the text most likely to meet its merges and added tokens.
    std::string text(bytes.substr(0, 512));
    for (lapidary::Token id = 0; id < tokenizer.size() && text.size() < 4096; ++id) {
      text += tokenizer.piece(id);
      if (id % 3 == 0) text += ' ';
    }
    for (size_t at = 0; (at = text.find("\u2581", at)) != text.npos;) text.replace(at, 3, 1, ' ');
    for (const ControlText control : {ControlText::kParse, ControlText::kLiteral}) {
      const std::vector<lapidary::Token> ids = tokenizer.encode(text, control);
      if (tokenizer.decode(ids, true) != text) __builtin_trap();
      for (const lapidary::Token id : ids)
        if (control == ControlText::kLiteral && tokenizer.is_control(id)) __builtin_trap();
    }
  } catch (const lapidary::Error&) {
  }
  return 0;
}
