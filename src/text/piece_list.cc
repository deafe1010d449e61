// Builds a tokenizer from pieces with scores, as SentencePiece and GGUF files hold them.
//
// SentencePiece merges the neighbours whose joint piece has the highest score. HF's converter,
// whose order is kept here, writes that down as a list: every way to cut a piece into two others,
// by score, then by length of the left and of the right part, all descending.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "base/fail.h"
#include "text/model.h"
#include "text/utf8.h"

namespace lapidary::text {

namespace {

struct Cut {
  float score;
  uint32_t left_chars;
  uint32_t right_chars;
  Token left, right, result;
};

bool goes_before(const Cut& a, const Cut& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.left_chars != b.left_chars) return a.left_chars > b.left_chars;
  if (a.right_chars != b.right_chars) return a.right_chars > b.right_chars;
  return std::tie(a.result, a.left, a.right) < std::tie(b.result, b.left, b.right);
}

// Whether merges may use the piece. A user-defined one takes no part: wherever its spelling occurs
// it has been cut out of the text before.
bool merges(const Model& model, std::span<const ScoredPiece> pieces, Token id) {
  const auto i = static_cast<size_t>(id);
  const PieceType type = pieces[i].type;
  return (type == PieceType::kNormal || type == PieceType::kUnused) && !model.control[i] &&
         model.byte_of[i] < 0;
}

std::vector<Cut> cuts_of(const Model& model, std::span<const ScoredPiece> pieces) {
  std::vector<Cut> cuts;
  for (Token id = 0; id < model.vocabulary.size(); ++id) {
    if (!merges(model, pieces, id)) continue;
    const std::string_view text = model.vocabulary.piece(id);
    uint32_t chars = 0;
    for (size_t at = 0; at < text.size(); at += utf8_size(static_cast<uint8_t>(text[at]))) ++chars;
    uint32_t left_chars = 1;
    for (size_t at = utf8_size(static_cast<uint8_t>(text[0])); at < text.size(); ++left_chars) {
      const Token left = model.vocabulary.find(text.substr(0, at));
      const Token right = left == kNoToken ? kNoToken : model.vocabulary.find(text.substr(at));
      if (right != kNoToken && merges(model, pieces, left) && merges(model, pieces, right))
        cuts.push_back({pieces[static_cast<size_t>(id)].score, left_chars, chars - left_chars, left,
                        right, id});
      at += utf8_size(static_cast<uint8_t>(text[at]));
    }
    if (!cuts.empty() && cuts.back().result == id &&
        pieces[static_cast<size_t>(id)].type == PieceType::kUnused)
      fail("{}: piece {} ({}) is unused but can be merged from others, which is not supported",
           model.source, id, shown(text));
  }
  return cuts;
}

void add_piece(Model& model, const ScoredPiece& piece) {
  const int index = model.vocabulary.size();
  if (piece.text.empty()) fail("{}: piece {} is empty", model.source, index);
  if (!is_utf8(piece.text))
    fail("{}: piece {} ({}) is not UTF-8", model.source, index, shown(piece.text));
  if (!std::isfinite(piece.score))
    fail("{}: piece {} ({}) has the score {}", model.source, index, shown(piece.text), piece.score);
  if (piece.type < PieceType::kNormal || piece.type > PieceType::kByte)
    fail("{}: piece {} ({}) has the unknown type {}", model.source, index, shown(piece.text),
         static_cast<int>(piece.type));
  if (model.vocabulary.add(piece.text) == kNoToken)
    fail("{}: pieces {} and {} are both {}", model.source, model.vocabulary.find(piece.text), index,
         shown(piece.text));
}

// Merges of one result have the same score, so that a file's order is kept where it lists them
// together, which all do. Pieces that no merge makes come last: nothing asks for their score.
std::vector<float> scores_by_rank(const Model& model) {
  const auto size = static_cast<size_t>(model.vocabulary.size());
  std::vector<int32_t> first(size, MergeTable::kNoRank);
  for (const MergeTable::Merge& merge : model.merges.slots()) {
    if (merge.rank == MergeTable::kNoRank) continue;
    int32_t& rank = first[static_cast<size_t>(merge.result)];
    rank = std::min(rank, merge.rank);
  }
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return first[a] < first[b]; });
  std::vector<float> scores(size);
  for (size_t place = 0; place < size; ++place) scores[order[place]] = -static_cast<float>(place);
  return scores;
}

PieceType type_of(const Model& model, Token id) {
  const std::string_view text = model.vocabulary.piece(id);
  if (model.control[static_cast<size_t>(id)])
    return text == "<unk>" ? PieceType::kUnknown : PieceType::kControl;
  if (model.byte_of[static_cast<size_t>(id)] >= 0) return PieceType::kByte;
  // An added token is what the search for added tokens finds in its own spelling.
  const auto finds_it = [id](const AddedTokens& added, std::string_view spelling) {
    const auto match = added.find(spelling, 0, true);
    return match && match->id == id;
  };
  return finds_it(model.added, text) || finds_it(model.added_normalized, normalized(text))
             ? PieceType::kUserDefined
             : PieceType::kNormal;
}

}  // namespace

std::vector<ScoredPiece> pieces_of(const Model& model) {
  const std::vector<float> by_rank =
      model.scores.empty() ? scores_by_rank(model) : std::vector<float>();
  const std::vector<float>& scores = model.scores.empty() ? by_rank : model.scores;
  std::vector<ScoredPiece> pieces;
  for (Token id = 0; id < model.vocabulary.size(); ++id)
    pieces.push_back(
        {model.vocabulary.piece(id), scores[static_cast<size_t>(id)], type_of(model, id)});
  return pieces;
}

Model model_of_pieces(std::span<const ScoredPiece> pieces, const std::string& name) {
  Model model;
  model.source = name;
  model.vocabulary = Vocabulary(pieces.size());
  size_t bytes = 0;
  for (const ScoredPiece& piece : pieces) {
    bytes += piece.text.size();
    if (bytes > kMostTokenizerBytes)
      fail("{}: pieces of more than {} bytes", name, kMostTokenizerBytes);
    add_piece(model, piece);
  }
  for (const ScoredPiece& piece : pieces) {
    model.control.push_back(piece.type == PieceType::kControl || piece.type == PieceType::kUnknown);
    model.scores.push_back(piece.score);
  }
  assign_roles(model);
  std::vector<Cut> cuts = cuts_of(model, pieces);
  std::sort(cuts.begin(), cuts.end(), goes_before);
  model.merges = MergeTable(cuts.size());
  for (size_t i = 0; i < cuts.size(); ++i)
    add_merge(model, i, cuts[i].left, cuts[i].right, cuts[i].result);
  finish(model);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (model.control[i]) {
      model.added.add(pieces[i].text, static_cast<Token>(i), true);
    } else if (pieces[i].type == PieceType::kUserDefined) {
      model.added_normalized.add(normalized(pieces[i].text), static_cast<Token>(i), false);
    }
  }
  return model;
}

}  // namespace lapidary::text
