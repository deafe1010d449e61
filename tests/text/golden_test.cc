// Equality of ids with HF tokenizers, on files made by tools/make_tokenizer_golden.py.
#include <fstream>

#include <gtest/gtest.h>

#include "test_tokenizers.h"

namespace lapidary {
namespace {

constexpr const char* kGolden = LAPIDARY_SOURCE_DIR "/tests/golden/tokenizer/";

Json read(const std::filesystem::path& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

class RealTokenizer : public testing::TestWithParam<const char*> {
 protected:
  static Tokenizer load() { return Tokenizer::load(real_tokenizer(GetParam())); }
  static bool absent() { return !Tokenizer::present(real_tokenizer(GetParam())); }
};

#define SKIP_WITHOUT_TOKENIZER() \
  if (absent())                  \
  GTEST_SKIP() << real_tokenizer(GetParam()) << " is absent: tools/fetch_tokenizers.sh fetches it"

TEST_P(RealTokenizer, GivesTheIdsOfHfTokenizers) {
  SKIP_WITHOUT_TOKENIZER();
  const Tokenizer tokenizer = load();
  const Json strings = read(kGolden + std::string("strings.json"));
  const Json ids = read(kGolden + std::string(GetParam()) + ".json");
  ASSERT_GE(strings.size(), 2000u);
  ASSERT_EQ(strings.size(), ids.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto text = strings[i].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), ids[i].get<std::vector<Token>>())
        << "string " << i << ": " << strings[i];
  }
}

TEST_P(RealTokenizer, GivesEachStringBack) {
  SKIP_WITHOUT_TOKENIZER();
  const Tokenizer tokenizer = load();
  for (const Json& string : read(kGolden + std::string("strings.json"))) {
    auto text = string.get<std::string>();
    for (const ControlText control : {ControlText::kParse, ControlText::kLiteral}) {
      const std::vector<Token> ids = tokenizer.encode(text, control);
      const std::string expected = as_decoded(text);
      EXPECT_EQ(tokenizer.decode(ids, true), expected);
      StreamDecoder stream(tokenizer, true);
      std::string streamed;
      for (const Token id : ids) streamed += stream.put(id);
      EXPECT_EQ(streamed + stream.finish(), expected);
      if (control == ControlText::kParse) continue;
      for (const Token id : ids) EXPECT_FALSE(tokenizer.is_control(id)) << string;
    }
  }
}

// The strings one after another make the call's word cache work and cross their borders.
TEST_P(RealTokenizer, RemembersWordsRightly) {
  SKIP_WITHOUT_TOKENIZER();
  const Tokenizer tokenizer = load();
  std::string all;
  std::vector<Token> expected;
  for (const Json& string : read(kGolden + std::string("strings.json"))) {
    const auto text = string.get<std::string>();
    const std::vector<Token> ids = tokenizer.encode(text + "<eos>");
    all += text + "<eos>";
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(tokenizer.encode(all), expected);
}

// Written down as pieces with scores, as a GGUF file has them, and read again.
TEST_P(RealTokenizer, PiecesAndScoresSayItAll) {
  SKIP_WITHOUT_TOKENIZER();
  const Tokenizer tokenizer = load();
  const Tokenizer again = Tokenizer::from_pieces(tokenizer.pieces(), "pieces");
  for (const Json& string : read(kGolden + std::string("strings.json"))) {
    const auto text = string.get<std::string>();
    if (text.find("▁") != text.npos) continue;  // beside a space: see lapidary/tokenizer.h
    EXPECT_EQ(again.encode(text), tokenizer.encode(text)) << string;
  }
}

INSTANTIATE_TEST_SUITE_P(Gemma, RealTokenizer, testing::Values("gemma2", "gemma3"),
                         [](const auto& test) { return std::string(test.param); });

// The built-in model's tokenizer, which comes in both forms, with ids and text by transformers.
class TinyModel : public testing::TestWithParam<const char*> {};

TEST_P(TinyModel, AgreesWithTransformers) {
  const std::string golden = kGolden + std::string("tiny.json");
  const std::string file = LAPIDARY_SOURCE_DIR "/models/tiny/" + std::string(GetParam());
  if (!std::filesystem::exists(golden) || !std::filesystem::exists(file))
    GTEST_SKIP() << golden << " or " << file << " is absent";
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  const Tokenizer tokenizer = file.ends_with(".model") ? Tokenizer::from_sentencepiece(bytes, file)
                                                       : Tokenizer::from_json(bytes, file);
  const Json rows = read(golden);
  ASSERT_GE(rows.at("encode").size(), 300u);
  for (const Json& row : rows.at("encode")) {
    // The two references differ where the text has U+2581 itself beside a space: each form of the
    // file follows its own.
    const bool other = file.ends_with(".model") && row.contains("sentencepiece_ids") &&
                       row.at("text").get<std::string>().find("▁") != std::string::npos;
    const auto ids = row.at(other ? "sentencepiece_ids" : "ids").get<std::vector<Token>>();
    EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>()), ids) << row;
  }
  for (const Json& row : rows.at("decode")) {
    const auto ids = row.at("ids").get<std::vector<Token>>();
    // Where the reference has U+FFFD for bytes that are not UTF-8, ours has the bytes.
    if (row.at("decoded").get<std::string>().find("\ufffd") != std::string::npos) continue;
    EXPECT_EQ(tokenizer.decode(ids, true), row.at("decoded").get<std::string>()) << row;
    EXPECT_EQ(tokenizer.decode(ids), row.at("decoded_without_special").get<std::string>()) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, TinyModel, testing::Values("tokenizer.json", "tokenizer.model"),
                         [](const auto& test) {
                           return std::string(test.param).substr(sizeof "tokenizer");
                         });

}  // namespace
}  // namespace lapidary
