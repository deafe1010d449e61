// Tiny tokenizers for tests, and the files of the real ones.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "lapidary/error.h"
#include "lapidary/tokenizer.h"

namespace lapidary {

using Json = nlohmann::json;

// A tokenizer.json in Gemma's form: control tokens, all bytes, the letters a to e, "\n", "▁" and
// the pieces that `merges` make of them.
inline Json tiny_json(const std::vector<std::pair<std::string, std::string>>& merges = {
                          {"a", "b"}, {"ab", "c"}, {"b", "c"}, {"▁", "ab"}, {"▁", "▁"}}) {
  Json vocab = Json::object();
  const auto add = [&vocab](const std::string& piece) {
    if (!vocab.contains(piece)) vocab[piece] = vocab.size();
  };
  Json added = Json::array();
  for (const char* piece :
       {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<b>", "\n"}) {
    const bool special = std::string(piece).size() > 3;
    added.push_back({{"id", vocab.size()},
                     {"content", piece},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
    add(piece);
  }
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte));
  for (const char* piece : {"a", "b", "c", "d", "e", "<", ">", "é", "▁"}) add(piece);
  Json pairs = Json::array();
  for (const auto& [left, right] : merges) {
    add(left + right);
    pairs.push_back({left, right});
  }
  return {
      {"added_tokens", added},
      {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}},
      {"pre_tokenizer", nullptr},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}}}}}},
      {"model", {{"type", "BPE"}, {"byte_fallback", true}, {"vocab", vocab}, {"merges", pairs}}}};
}

inline Tokenizer tokenizer_of(const Json& json) {
  return Tokenizer::from_json(json.dump(), "t.json");
}

// The pieces of `ids`, joined by '|'.
inline std::string pieces_of(const Tokenizer& tokenizer, const std::vector<Token>& ids) {
  std::string out;
  for (const Token id : ids) {
    if (!out.empty()) out += '|';
    out += tokenizer.piece(id);
  }
  return out;
}

// What decode(encode(text), true) gives: U+2581 becomes a space.
inline std::string as_decoded(std::string text) {
  for (size_t at = 0; (at = text.find("▁", at)) != text.npos;) text.replace(at, 3, 1, ' ');
  return text;
}

inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// The folder of a real tokenizer: "gemma2" or "gemma3". Fetched by tools/fetch_tokenizers.sh.
inline std::filesystem::path real_tokenizer(const std::string& name) {
  const char* folder = std::getenv("LAPIDARY_TOKENIZERS");
  return std::filesystem::path(folder != nullptr ? folder : LAPIDARY_BINARY_DIR "/tokenizers") /
         name;
}

}  // namespace lapidary
