#include "text/model.h"

#include <algorithm>

#include "base/fail.h"
#include "text/utf8.h"

namespace lapidary::text {

namespace {

// Control tokens whatever the file says of them: some files list the marks of a turn as ordinary
// text, and text from outside must not be able to spell them.
constexpr std::string_view kControlPieces[] = {"<pad>",
                                               "<eos>",
                                               "<bos>",
                                               "<unk>",
                                               "<start_of_turn>",
                                               "<end_of_turn>",
                                               "<start_of_image>",
                                               "<end_of_image>",
                                               "<image_soft_token>"};

}  // namespace

void assign_roles(Model& model) {
  const auto size = static_cast<size_t>(model.vocabulary.size());
  model.control.resize(size);
  for (const std::string_view piece : kControlPieces) {
    const Token id = model.vocabulary.find(piece);
    if (id != kNoToken) model.control[static_cast<size_t>(id)] = true;
  }
  model.byte_of.assign(size, -1);
  for (int byte = 0; byte < 256; ++byte) {
    const std::string piece = fmt::format("<0x{:02X}>", byte);
    const Token id = model.vocabulary.find(piece);
    model.bytes[static_cast<size_t>(byte)] = id;
    if (id != kNoToken) {
      model.byte_of[static_cast<size_t>(id)] = static_cast<int16_t>(byte);
      continue;
    }
    // Gemma 1's and 2's files have "\t" in the place of <0x09>. An ASCII byte is always a character
    // of its own, so its piece does as well; no other byte can do without.
    const char character = static_cast<char>(byte);
    if (byte >= 0x80 || model.vocabulary.find({&character, 1}) == kNoToken)
      fail("{}: byte piece {} is missing", model.source, piece);
  }
}

void add_merge(Model& model, size_t index, Token left, Token right, Token result) {
  // Neither can a byte be part of a longer piece, nor a control token the work of merges: encoding
  // relies on the first, ControlText::kLiteral on the second.
  for (const Token id : {left, right, result}) {
    const auto i = static_cast<size_t>(id);
    if (model.byte_of[i] >= 0 || model.control[i])
      fail("{}: merge {} involves {}, which is a {} token", model.source, index,
           shown(model.vocabulary.piece(id)), model.control[i] ? "control" : "byte");
  }
  if (!model.merges.add(left, right, result))
    fail("{}: merge {} repeats the pair {} {}", model.source, index,
         shown(model.vocabulary.piece(left)), shown(model.vocabulary.piece(right)));
}

void finish(Model& model) {
  const Vocabulary& vocabulary = model.vocabulary;
  const auto size = static_cast<size_t>(vocabulary.size());
  for (size_t id = 0; id < size; ++id) {
    const std::string_view piece = vocabulary.piece(static_cast<Token>(id));
    if (piece.empty()) fail("{}: the piece with id {} is empty", model.source, id);
    if (model.control[id] || static_cast<unsigned char>(piece[0]) < 0x80 ? piece.size() > 1
                                                                         : piece.size() > 4)
      continue;
    const Utf8Char c = first_utf8(piece);
    if (c.size == piece.size() && !model.control[id])
      model.characters.set(c.code, static_cast<Token>(id));
  }
  std::vector<bool> merged(size);
  for (const MergeTable::Merge& merge : model.merges.slots())
    if (merge.rank != MergeTable::kNoRank) merged[static_cast<size_t>(merge.result)] = true;
  for (size_t id = 0; id < size; ++id)
    if (merged[id]) model.joins.add_all(vocabulary.piece(static_cast<Token>(id)));
  if (vocabulary.find(kSpacePiece) == kNoToken)
    fail("{}: piece '{}' is missing", model.source, kSpacePiece);
  model.bos = vocabulary.find("<bos>");
  model.eos = vocabulary.find("<eos>");
  model.end_of_turn = vocabulary.find("<end_of_turn>");
  if (model.bos == kNoToken) fail("{}: piece '<bos>' is missing", model.source);
  if (model.eos == kNoToken) fail("{}: piece '<eos>' is missing", model.source);
}

}  // namespace lapidary::text
