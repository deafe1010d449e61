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

// The pieces that merges may make, those of the highest score first.
std::vector<Token> merged_pieces(const Model& model, std::span<const ScoredPiece> pieces) {
  std::vector<Token> order;
  for (Token id = 0; id < model.vocabulary.size(); ++id)
    if (merges(model, pieces, id)) order.push_back(id);
  std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) {
    return pieces[static_cast<size_t>(a)].score > pieces[static_cast<size_t>(b)].score;
  });
  return order;
}

// Every way to cut a few pieces into two strings, and then those into pieces.
class Cutter {
 public:
  // `merged`: the pieces that merges may use.
  Cutter(const Model& model, std::span<const ScoredPiece> pieces, std::span<const Token> merged)
      : model_(model), pieces_(pieces), merges_(pieces.size()) {
    for (const Token id : merged) merges_[static_cast<size_t>(id)] = 1;
  }

  void add(Token id) {
    const std::string_view text = model_.vocabulary.piece(id);
    const auto next = [&](size_t at) { return at + utf8_size(static_cast<uint8_t>(text[at])); };
    const size_t first = splits_.size();
    uint32_t chars = 1;
    for (size_t at = next(0); at < text.size(); at = next(at), ++chars) {
      splits_.push_back({id, chars, 0});
      lefts_.push_back(text.substr(0, at));
      rights_.push_back(text.substr(at));
    }
    for (size_t i = first; i < splits_.size(); ++i)
      splits_[i].right_chars = chars - splits_[i].left_chars;
  }

  // Appends the cuts of all pieces that were added, in order, and forgets them.
  void finish(std::vector<Cut>& cuts) {
    const size_t kept = keep_right_pieces();
    left_ids_.resize(kept);
    model_.vocabulary.find_all(std::span(lefts_).first(kept), left_ids_);
    const auto begin = static_cast<std::ptrdiff_t>(cuts.size());
    for (size_t i = 0; i < kept; ++i) {
      const Token left = left_ids_[i], right = right_ids_[i];
      if (left == kNoToken || !merges_[static_cast<size_t>(left)]) continue;
      const auto& [id, left_chars, right_chars] = splits_[i];
      if (pieces_[static_cast<size_t>(id)].type == PieceType::kUnused)
        fail("{}: piece {} ({}) is unused but can be merged from others, which is not supported",
             model_.source, id, shown(model_.vocabulary.piece(id)));
      cuts.push_back(
          {pieces_[static_cast<size_t>(id)].score, left_chars, right_chars, left, right, id});
    }
    std::sort(cuts.begin() + begin, cuts.end(), goes_before);
    splits_.clear();
    lefts_.clear();
    rights_.clear();
  }
  size_t size() const { return splits_.size(); }

 private:
  struct Split {
    Token id;
    uint32_t left_chars, right_chars;
  };
  // Of every third split the right part is no piece, and the left one need not be looked up. Moves
  // the others to the front and tells how many they are.
  size_t keep_right_pieces() {
    right_ids_.resize(splits_.size());
    model_.vocabulary.find_all(rights_, right_ids_);
    size_t kept = 0;
    for (size_t i = 0; i < splits_.size(); ++i) {
      const Token right = right_ids_[i];
      if (right == kNoToken || !merges_[static_cast<size_t>(right)]) continue;
      splits_[kept] = splits_[i];
      lefts_[kept] = lefts_[i];
      right_ids_[kept++] = right;
    }
    return kept;
  }

  const Model& model_;
  std::span<const ScoredPiece> pieces_;
  std::vector<uint8_t> merges_;  // by piece: asked millions of times, so in as few bytes as can be
  std::vector<Split> splits_;
  std::vector<std::string_view> lefts_, rights_;
  std::vector<Token> left_ids_, right_ids_;
};

// In the order of merging. Pieces go together that have the same score, and otherwise a few
// thousand cuts at a time: enough for the look-ups to overlap, few enough to stay in the caches.
std::vector<Cut> cuts_of(const Model& model, std::span<const ScoredPiece> pieces) {
  constexpr size_t kTogether = 4096;
  const std::vector<Token> order = merged_pieces(model, pieces);
  const auto score = [&](size_t i) { return pieces[static_cast<size_t>(order[i])].score; };
  std::vector<Cut> cuts;
  Cutter cutter(model, pieces, order);
  for (size_t i = 0; i < order.size(); ++i) {
    cutter.add(order[i]);
    const bool last = i + 1 == order.size();
    if (last || (cutter.size() >= kTogether && score(i + 1) != score(i))) cutter.finish(cuts);
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
  const std::vector<Cut> cuts = cuts_of(model, pieces);
  model.merges = MergeTable(cuts.size());
  constexpr size_t kAhead = 16;
  for (size_t i = 0; i < cuts.size(); ++i) {
    if (i + kAhead < cuts.size())
      model.merges.prefetch(cuts[i + kAhead].left, cuts[i + kAhead].right);
    add_merge(model, i, cuts[i].left, cuts[i].right, cuts[i].result);
  }
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
