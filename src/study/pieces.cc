#include "study/pieces.h"

#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "base/fail.h"
#include "base/statistics.h"

namespace lapidary {

size_t given_tokens(const Engine& engine, std::span<const Token> text) {
  return engine.has_tokenizer() && !text.empty() && text[0] == engine.tokenizer().bos() ? 1 : 0;
}

std::vector<std::vector<Token>> pieces_of(const Engine& engine, std::span<const Token> text,
                                          int64_t length) {
  const size_t given = given_tokens(engine, text), own = static_cast<size_t>(length) - given;
  std::vector<std::vector<Token>> pieces;
  for (size_t at = given; at + own <= text.size(); at += own) {
    std::vector<Token> piece(text.begin(), text.begin() + static_cast<int64_t>(given));
    const auto part = text.subspan(at, own);
    piece.insert(piece.end(), part.begin(), part.end());
    pieces.push_back(std::move(piece));
  }
  if (pieces.empty())
    fail("a text of {} tokens, expected {} or more to read at once", text.size(), length);
  return pieces;
}

MeanOfPieces mean_of_pieces(std::span<const double> values) {
  MeanOfPieces result{.mean = mean(values)};
  if (values.size() < 2) return result;
  const auto n = static_cast<double>(values.size());
  const double t = quantile(boost::math::students_t(n - 1), 0.975);
  result.margin = t * standard_deviation(values) / std::sqrt(n);
  return result;
}

}  // namespace lapidary
