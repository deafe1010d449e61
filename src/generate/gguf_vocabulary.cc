#include "generate/gguf_vocabulary.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "lapidary/log.h"
#include "lapidary/tokenizer.h"

#include "base/fail.h"
#include "generate/chat_template.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// llama.cpp looks for a user-defined piece in the text as it is, where spaces are spaces.
std::string spelling(const ScoredPiece& piece) {
  std::string text(piece.text);
  if (piece.type != PieceType::kUserDefined) return text;
  constexpr std::string_view kSpace = "\u2581";
  for (size_t at = 0; (at = text.find(kSpace, at)) != std::string::npos;)
    text.replace(at, kSpace.size(), 1, ' ');
  return text;
}

// The three lists of a vocabulary.
struct Tokens {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;

  int size() const { return static_cast<int>(texts.size()); }
  void add(std::string text, float score, PieceType type) {
    texts.push_back(std::move(text));
    scores.push_back(score);
    types.push_back(static_cast<int32_t>(type));
  }
};

Tokens tokens_of(const Tokenizer& tokenizer, int vocab_size) {
  std::vector<ScoredPiece> pieces = tokenizer.pieces();
  if (tokenizer.size() > vocab_size) {
    log(LogLevel::kInfo,
        fmt::format("{} tokens of the tokenizer have no row in the embedding and "
                    "are left out, the first of them {}",
                    tokenizer.size() - vocab_size, pieces[static_cast<size_t>(vocab_size)].text));
    pieces.resize(static_cast<size_t>(vocab_size));
  }
  Tokens tokens;
  for (const ScoredPiece& piece : pieces) tokens.add(spelling(piece), piece.score, piece.type);
  while (tokens.size() < vocab_size)  // the embedding is padded
    tokens.add(fmt::format("[PAD{}]", tokens.size()), -static_cast<float>(tokens.size()),
               PieceType::kUnused);
  return tokens;
}

Tokens placeholder_tokens(int vocab_size, const std::string& where) {
  Tokens tokens;
  for (const char* control : {"<pad>", "<eos>", "<bos>"})
    tokens.add(control, 0, PieceType::kControl);
  tokens.add("<unk>", 0, PieceType::kUnknown);
  for (int byte = 0; byte < 256; ++byte)
    tokens.add(fmt::format("<0x{:02X}>", byte), 0, PieceType::kByte);
  if (vocab_size < tokens.size())
    fail(
        "{}: field 'vocab_size': {}, expected {} or more where there is no tokenizer: llama.cpp "
        "aborts on bytes that have no token",
        where, vocab_size, tokens.size());
  while (tokens.size() < vocab_size)
    tokens.add(fmt::format("[{}]", tokens.size()), -static_cast<float>(tokens.size()),
               PieceType::kNormal);
  return tokens;
}

// `id_of` gives the id of a piece, or none.
template <class IdOf>
GgufMetadata vocabulary_keys(Tokens tokens, IdOf&& id_of) {
  GgufMetadata keys;
  const std::string prefix = "tokenizer.ggml.";
  const int size = tokens.size();
  keys.emplace_back(prefix + "model", std::string("llama"));
  keys.emplace_back(prefix + "pre", std::string("default"));
  keys.emplace_back(prefix + "tokens", GgufArray(std::move(tokens.texts)));
  keys.emplace_back(prefix + "scores", GgufArray(std::move(tokens.scores)));
  keys.emplace_back(prefix + "token_type", GgufArray(std::move(tokens.types)));
  for (const auto& [key, piece] : {std::pair{"bos", "<bos>"},
                                   {"eos", "<eos>"},
                                   {"unknown", "<unk>"},
                                   {"padding", "<pad>"},
                                   {"eot", "<end_of_turn>"}}) {
    const std::optional<Token> id = id_of(piece);
    if (id && *id < size)
      keys.emplace_back(fmt::format("{}{}_token_id", prefix, key), static_cast<uint32_t>(*id));
  }
  keys.emplace_back(prefix + "add_bos_token", true);
  keys.emplace_back(prefix + "add_eos_token", false);
  keys.emplace_back(prefix + "add_space_prefix", false);
  return keys;
}

}  // namespace

GgufMetadata gguf_vocabulary(const fs::path& folder, int vocab_size) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  GgufMetadata keys = vocabulary_keys(tokens_of(tokenizer, vocab_size),
                                      [&](const char* piece) { return tokenizer.find(piece); });
  if (std::string text = chat_template(folder); !text.empty())
    keys.emplace_back("tokenizer.chat_template", std::move(text));
  return keys;
}

GgufMetadata gguf_placeholder_vocabulary(int vocab_size, const std::string& where) {
  Tokens tokens = placeholder_tokens(vocab_size, where);
  const std::vector<std::string> texts = tokens.texts;
  return vocabulary_keys(std::move(tokens), [&](const char* piece) -> std::optional<Token> {
    const auto found = std::find(texts.begin(), texts.end(), piece);
    if (found == texts.end()) return std::nullopt;
    return static_cast<Token>(found - texts.begin());
  });
}

}  // namespace lapidary
