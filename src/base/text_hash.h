// Numbers drawn from names and from lists of tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lapidary/token.h"

#include "base/rng.h"

namespace lapidary {

// Goes on from `hash` with the bytes of a text.
inline uint64_t hash_text(uint64_t hash, std::string_view text) {
  for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
  return hash;
}

// The same with a list of tokens.
inline uint64_t hash_tokens(uint64_t hash, std::span<const Token> tokens) {
  for (const Token id : tokens) hash = mix64(hash ^ static_cast<uint64_t>(id));
  return hash;
}

}  // namespace lapidary
