// A text as sequences to learn by heart.
#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "lapidary/engine.h"
#include "lapidary/text_capacity_study.h"

#include "base/fail.h"
#include "base/mapped_file.h"
#include "base/rng.h"
#include "base/text_hash.h"
#include "train/shuffle.h"

namespace lapidary {

namespace {

constexpr uint64_t kOrderStream = 0x74657874;

std::vector<Token> tokens_of(const std::filesystem::path& text,
                             const std::filesystem::path& tokenizer) {
  const MappedFile file = MappedFile::open(text);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  if (!tokenizer.empty()) return load_tokenizer(tokenizer).encode(bytes, ControlText::kLiteral);
  std::vector<Token> tokens;
  for (const char byte : bytes) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

// Numbers the tokens that occur from 0; returns how many there are.
int renumber(std::vector<Token>& tokens) {
  std::map<Token, Token> numbers;
  for (const Token token : tokens) numbers[token] = 0;
  Token next = 0;
  for (auto& [token, number] : numbers) number = next++;
  for (Token& token : tokens) token = numbers[token];
  return next;
}

}  // namespace

TextSequences text_sequences(const std::filesystem::path& text,
                             const std::filesystem::path& tokenizer, int64_t length,
                             int64_t held_out, uint64_t seed) {
  std::vector<Token> tokens = tokens_of(text, tokenizer);
  TextSequences found{.vocabulary = renumber(tokens)};
  if (found.vocabulary < 2)
    fail("{}: {} different tokens, expected 2 or more", text.string(), found.vocabulary);
  found.fingerprint = hash_tokens(0, tokens);
  std::set<std::vector<Token>> seen;
  std::vector<std::vector<Token>> sequences;
  for (auto at = tokens.begin(); tokens.end() - at >= length; at += length) {
    std::vector<Token> sequence(at, at + length);
    if (seen.insert(sequence).second)
      sequences.push_back(std::move(sequence));
    else
      ++found.duplicates;
  }
  if (std::ssize(sequences) <= held_out)
    fail("{}: {} different sequences of {} tokens, expected more than the {} to hold out",
         text.string(), sequences.size(), length, held_out);
  const auto order = shuffled(std::ssize(sequences), CounterRng(mix64(seed), kOrderStream));
  for (size_t i = 0; i < order.size(); ++i)
    (std::cmp_less(i, held_out) ? found.held_out : found.train)
        .push_back(std::move(sequences[static_cast<size_t>(order[i])]));
  return found;
}

}  // namespace lapidary
