// A text in pieces that are read each by itself, and means over them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lapidary/attention_study.h"
#include "lapidary/engine.h"

namespace lapidary {

// As many pieces of `length` tokens as the text has, one after another; what is left is not read.
// Where the text begins with <bos>, so does each piece, of whose tokens that is one. Throws
// Error{kInput} for a text that has not one piece.
std::vector<std::vector<Token>> pieces_of(const Engine& engine, std::span<const Token> text,
                                          int64_t length);

// Tokens that a piece begins with but does not share: 1 for <bos>, or 0.
size_t given_tokens(const Engine& engine, std::span<const Token> text);

MeanOfPieces mean_of_pieces(std::span<const double> values);

}  // namespace lapidary
