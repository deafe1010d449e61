// A part of a page: a text whose tokens are tinted by a figure, each of which pointer and arrow
// keys make say it.
#pragma once

#include <string>
#include <vector>

#include "lapidary/engine.h"

namespace lapidary {

struct TintedToken {
  std::string text;
  double strength = 0;  // magnitude of its figure
  bool worse = false;   // tinted by the other colour
  std::string says;
};

// What a token says, as far as bytes of one token can be read; its id where there is no tokenizer.
std::string text_of(const Engine& engine, Token id);

// The strongest has the full tint, the others go with the root. One on a page, of study.css.
std::string tinted_text(const std::vector<TintedToken>& tokens);

}  // namespace lapidary
