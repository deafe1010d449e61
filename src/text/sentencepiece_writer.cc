// Writes SentencePiece's tokenizer.model, the protocol buffer that sentencepiece_model.cc reads.
#include <bit>
#include <string>

#include "text/model.h"

namespace lapidary::text {

namespace {

// One message in the making. Field numbers are those of sentencepiece_model.proto.
class Message {
 public:
  Message& number(uint64_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
    return *this;
  }
  Message& real(uint64_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) text_ += static_cast<char>(bits >> shift & 0xff);
    return *this;
  }
  Message& bytes(uint64_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    text_ += value;
    return *this;
  }
  std::string& text() { return text_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>((value & 0x7f) | 0x80);
    text_ += static_cast<char>(value);
  }

  std::string text_;
};

// SentencePiece has other spellings of the control tokens where the file says none.
std::string trainer_spec(std::span<const ScoredPiece> pieces) {
  struct Control {
    std::string_view spelling;
    uint64_t id_field, spelling_field;
  };
  constexpr Control kControls[] = {
      {"<unk>", 40, 45}, {"<bos>", 41, 46}, {"<eos>", 42, 47}, {"<pad>", 43, 48}};
  constexpr uint64_t kBpe = 2;
  Message spec;
  spec.number(3, kBpe).number(4, pieces.size()).number(24, false).number(35, true);
  for (size_t id = 0; id < pieces.size(); ++id)
    for (const Control& control : kControls)
      if (pieces[id].text == control.spelling)
        spec.number(control.id_field, id).bytes(control.spelling_field, control.spelling);
  return spec.text();
}

}  // namespace

std::string sentencepiece_model(std::span<const ScoredPiece> pieces) {
  Message model;
  for (const ScoredPiece& piece : pieces)
    model.bytes(1, Message()
                       .bytes(1, piece.text)
                       .real(2, piece.score)
                       .number(3, static_cast<uint64_t>(piece.type))
                       .text());
  model.bytes(2, trainer_spec(pieces));
  // No rules; no space put before texts, none taken away, all made U+2581.
  model.bytes(
      3, Message().bytes(1, "identity").bytes(2, "").number(3, 0).number(4, 0).number(5, 1).text());
  return std::move(model.text());
}

}  // namespace lapidary::text
