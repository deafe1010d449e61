// Reads SentencePiece's tokenizer.model.
//
// The file is a protocol buffer of which four messages matter. They are read here rather than by
// libsentencepiece, whose interface tells neither the model's type nor how text is normalised, and
// which prints to stderr about files it does not like; the tests compare with it.
#include <bit>
#include <cstring>

#include "base/fail.h"
#include "base/mapped_file.h"
#include "text/model.h"
#include "text/utf8.h"

namespace lapidary::text {

namespace {

// Walks the fields of one message. Both kinds of values are set: `number` for varints and fixed
// ones, `bytes` for strings and nested messages.
class Message {
 public:
  Message(const std::string& source, std::string_view rest) : source_(source), rest_(rest) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = key >> 3;
    number = 0;
    bytes = {};
    switch (key & 7) {
      case 0:
        number = varint();
        break;
      case 1:
        bytes = take(8);
        break;
      case 2:
        bytes = take(varint());
        break;
      case 5:
        bytes = take(4);
        for (size_t i = 4; i-- > 0;) number = number << 8 | static_cast<uint8_t>(bytes[i]);
        break;
      default:
        broken();
    }
    return true;
  }

  uint64_t field = 0;
  uint64_t number = 0;
  std::string_view bytes;

 private:
  [[noreturn]] void broken() const { fail("{}: not a SentencePiece model, or cut short", source_); }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) broken();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    broken();
  }

  const std::string& source_;
  std::string_view rest_;
};

// Field numbers of sentencepiece_model.proto.
enum : uint64_t { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5 };

ScoredPiece read_piece(const std::string& source, std::string_view bytes) {
  ScoredPiece piece{{}, 0, PieceType::kNormal};
  for (Message m(source, bytes); m.next();) {
    if (m.field == 1) piece.text = m.bytes;
    if (m.field == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(m.number));
    if (m.field == 3) piece.type = static_cast<PieceType>(std::min<uint64_t>(m.number, 255));
  }
  return piece;
}

void check_trainer(const std::string& source, std::string_view bytes) {
  uint64_t type = 1;
  bool byte_fallback = false;
  bool space_as_suffix = false;
  for (Message m(source, bytes); m.next();) {
    if (m.field == 3) type = m.number;
    if (m.field == 24) space_as_suffix = m.number != 0;
    if (m.field == 35) byte_fallback = m.number != 0;
  }
  if (type != 2) fail("{}: trainer_spec.model_type is {}, only 2 (BPE) is supported", source, type);
  if (!byte_fallback) fail("{}: trainer_spec.byte_fallback must be true", source);
  if (space_as_suffix) fail("{}: trainer_spec.treat_whitespace_as_suffix is not supported", source);
}

void check_normalizer(const std::string& source, std::string_view bytes) {
  bool dummy_prefix = true;
  bool fewer_spaces = true;
  bool escape_spaces = true;
  bool rules = false;
  for (Message m(source, bytes); m.next();) {
    if (m.field == 2) rules = !m.bytes.empty();
    if (m.field == 3) dummy_prefix = m.number != 0;
    if (m.field == 4) fewer_spaces = m.number != 0;
    if (m.field == 5) escape_spaces = m.number != 0;
  }
  if (rules) fail("{}: normalizer_spec.precompiled_charsmap is not supported", source);
  if (dummy_prefix) fail("{}: normalizer_spec.add_dummy_prefix must be false", source);
  if (fewer_spaces) fail("{}: normalizer_spec.remove_extra_whitespaces must be false", source);
  if (!escape_spaces) fail("{}: normalizer_spec.escape_whitespaces must be true", source);
}

void check_denormalizer(const std::string& source, std::string_view bytes) {
  for (Message m(source, bytes); m.next();)
    if (m.field == 2 && !m.bytes.empty())
      fail("{}: denormalizer_spec.precompiled_charsmap is not supported", source);
}

}  // namespace

Model read_sentencepiece(std::string_view bytes, const std::string& name) {
  std::vector<ScoredPiece> pieces;
  std::string_view trainer;
  std::string_view normalizer;
  for (Message m(name, bytes); m.next();) {
    if (m.field == kPieces) pieces.push_back(read_piece(name, m.bytes));
    if (m.field == kTrainerSpec) trainer = m.bytes;
    if (m.field == kNormalizerSpec) normalizer = m.bytes;
    if (m.field == kDenormalizerSpec) check_denormalizer(name, m.bytes);
  }
  if (pieces.empty()) fail("{}: not a SentencePiece model: no pieces", name);
  check_trainer(name, trainer);
  check_normalizer(name, normalizer);
  return model_of_pieces(pieces, name);
}

Model read_sentencepiece_file(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  const auto bytes = file.bytes();
  return read_sentencepiece({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                            path.string());
}

}  // namespace lapidary::text
