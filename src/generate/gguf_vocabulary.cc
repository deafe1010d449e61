#include "generate/gguf_vocabulary.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "lapidary/log.h"
#include "lapidary/tokenizer.h"

#include "base/fail.h"
#include "generate/chat_template.h"
#include "io/gguf_keys.h"
#include "io/printable.h"
#include "text/model.h"
#include "text/utf8.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
// A key of our own: the tokens have no texts.
constexpr const char* kPlaceholderKey = "lapidary.placeholder_vocabulary";

// llama.cpp looks for a user-defined piece in the text as it is, where spaces are spaces.
std::string spelling(const ScoredPiece& piece) {
  std::string result(piece.text);
  if (piece.type != PieceType::kUserDefined) return result;
  for (size_t at = 0; (at = result.find(text::kSpacePiece, at)) != std::string::npos;)
    result.replace(at, text::kSpacePiece.size(), 1, ' ');
  return result;
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
  keys.emplace_back(kTokensKey, GgufArray(std::move(tokens.texts)));
  keys.emplace_back(kScoresKey, GgufArray(std::move(tokens.scores)));
  keys.emplace_back(kTypesKey, GgufArray(std::move(tokens.types)));
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
  GgufMetadata keys =
      vocabulary_keys(std::move(tokens), [&](const char* piece) -> std::optional<Token> {
        const auto found = std::find(texts.begin(), texts.end(), piece);
        if (found == texts.end()) return std::nullopt;
        return static_cast<Token>(found - texts.begin());
      });
  keys.emplace_back(kPlaceholderKey, true);
  return keys;
}

namespace {

// The pieces of a file's lists, with the spaces of user-defined ones as in the others. The texts
// point into `spellings` or the lists.
std::vector<ScoredPiece> pieces_of(const GgufKeys& keys, std::deque<std::string>& spellings) {
  const auto& texts = keys.list<std::string>(kTokensKey);
  const auto& scores = keys.list<float>(kScoresKey);
  const auto& types = keys.list<int32_t>(kTypesKey);
  for (const auto& [key, size] : {std::pair{kScoresKey, scores.size()}, {kTypesKey, types.size()}})
    if (size != texts.size())
      keys.fail_key(key, fmt::format("{} elements, but there are {} tokens", size, texts.size()));
  std::vector<ScoredPiece> pieces;
  pieces.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    if (types[i] < static_cast<int32_t>(PieceType::kNormal) ||
        types[i] > static_cast<int32_t>(PieceType::kByte))
      keys.fail_key(kTypesKey, fmt::format("token {} has the unknown type {}", i, types[i]));
    const auto type = static_cast<PieceType>(types[i]);
    std::string_view spelling = texts[i];
    if (type == PieceType::kUserDefined && spelling.find(' ') != spelling.npos)
      spelling = spellings.emplace_back(text::normalized(spelling));
    pieces.push_back({spelling, scores[i], type});
  }
  return pieces;
}

}  // namespace

std::optional<Tokenizer> read_gguf_vocabulary(const GgufContents& contents,
                                              const std::string& where) {
  const GgufKeys keys(contents, where);
  constexpr const char* kModelKey = "tokenizer.ggml.model";
  if (!keys.has(kModelKey) || keys.find_boolean(kPlaceholderKey).value_or(false))
    return std::nullopt;
  if (const std::string& model = keys.string(kModelKey); model != "llama")
    keys.fail_key(kModelKey, fmt::format("'{}' is not supported, expected llama (SentencePiece)",
                                         printable(model)));
  constexpr const char* kSpaceKey = "tokenizer.ggml.add_space_prefix";
  if (keys.find_boolean(kSpaceKey).value_or(false))
    keys.fail_key(kSpaceKey, "true is not supported: no Gemma puts a space before texts");
  std::deque<std::string> spellings;
  Tokenizer tokenizer = Tokenizer::from_pieces(pieces_of(keys, spellings), where);
  constexpr const char* kBosKey = "tokenizer.ggml.bos_token_id";
  if (const auto bos =
          keys.find_integer(kBosKey, 0, tokenizer.size() - 1).value_or(tokenizer.bos());
      bos != tokenizer.bos())
    keys.fail_key(kBosKey,
                  fmt::format("expected {}, the id of <bos>, found {}", tokenizer.bos(), bos));
  constexpr const char* kAddBosKey = "tokenizer.ggml.add_bos_token";
  if (!keys.find_boolean(kAddBosKey).value_or(true))
    log(LogLevel::kWarning,
        fmt::format("{}: key '{}': false is left out: Gemma's texts start with <bos>", where,
                    kAddBosKey));
  return tokenizer;
}

std::optional<std::string> sentencepiece_of_gguf(const GgufContents& contents,
                                                 const std::string& where) {
  if (!read_gguf_vocabulary(contents, where)) return std::nullopt;  // and refuses what is wrong
  std::deque<std::string> spellings;
  return text::sentencepiece_model(pieces_of(GgufKeys(contents, where), spellings));
}

}  // namespace lapidary
