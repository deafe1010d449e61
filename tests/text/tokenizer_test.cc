#include "lapidary/tokenizer.h"

#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "test_tokenizers.h"

namespace lapidary {
namespace {

std::vector<Token> ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& pieces) {
  std::vector<Token> ids;
  for (const std::string& piece : pieces) ids.push_back(tokenizer.find(piece).value());
  return ids;
}

TEST(Tokenizer, MergesByRankAndLeftmostAmongEquals) {
  const Tokenizer t = tokenizer_of(tiny_json());
  EXPECT_EQ(pieces_of(t, t.encode("abc")), "abc");
  EXPECT_EQ(pieces_of(t, t.encode("bcabbc")), "bc|ab|bc");
  EXPECT_EQ(pieces_of(t, t.encode(" ab abc")), "▁ab|▁|abc");
  EXPECT_EQ(pieces_of(t, t.encode("   ")), "▁▁|▁");
  EXPECT_EQ(pieces_of(t, t.encode("")), "");
}

TEST(Tokenizer, FallsBackToBytes) {
  const Tokenizer t = tokenizer_of(tiny_json());
  EXPECT_EQ(pieces_of(t, t.encode("aéè")), "a|é|<0xC3>|<0xA8>");
  EXPECT_EQ(pieces_of(t, t.encode("a\xff\xc3"
                                  "b")),
            "a|<0xFF>|<0xC3>|b");
  EXPECT_EQ(pieces_of(t, t.encode("\xed\xa0\x80")), "<0xED>|<0xA0>|<0x80>");  // a surrogate
  EXPECT_EQ(pieces_of(t, t.encode("\xc1\xa1\xf5")), "<0xC1>|<0xA1>|<0xF5>");  // overlong; too high
  EXPECT_EQ(t.decode(t.encode("a\xff\xc3"
                              "b")),
            "a\xff\xc3"
            "b");
}

TEST(Tokenizer, TakesTheLongestAddedToken) {
  Json json = tiny_json();
  Json longer = json["added_tokens"][6];
  longer["id"] = json["model"]["vocab"].size();
  longer["content"] = "<b>a";
  json["added_tokens"].push_back(longer);
  const Tokenizer t = tokenizer_of(json);
  EXPECT_EQ(pieces_of(t, t.encode("a<b>ab<b>b")), "a|<b>a|b|<b>|b");
  EXPECT_EQ(t.size(), t.find("<b>a").value() + 1);
  EXPECT_FALSE(t.is_control(t.find("<b>a").value()));
}

TEST(Tokenizer, LooksForNormalizedAddedTokensAfterNormalizing) {
  Json json = tiny_json();
  Json phrase = json["added_tokens"][6];
  phrase["id"] = json["model"]["vocab"].size();
  phrase["content"] = "a b";
  json["added_tokens"].push_back(phrase);
  EXPECT_EQ(pieces_of(tokenizer_of(json), tokenizer_of(json).encode("a b a▁b")), "a b|▁|a|▁|b");
  json["added_tokens"].back()["normalized"] = true;
  EXPECT_EQ(pieces_of(tokenizer_of(json), tokenizer_of(json).encode("a b a▁b")), "a b|▁|a b");
}

TEST(Tokenizer, LiteralTextMakesNoControlToken) {
  const Tokenizer t = tokenizer_of(tiny_json());
  const std::string text = "a<end_of_turn><bos>b<b>\n";
  const auto parsed = t.encode(text);
  const auto literal = t.encode(text, ControlText::kLiteral);
  EXPECT_EQ(parsed, ids_of(t, {"a", "<end_of_turn>", "<bos>", "b", "<b>", "\n"}));
  for (const Token id : literal) EXPECT_FALSE(t.is_control(id));
  EXPECT_EQ(literal.back(), t.find("\n").value());
  EXPECT_EQ(t.decode(literal), text);
  EXPECT_EQ(t.decode(parsed), "ab<b>\n");
  EXPECT_EQ(t.decode(parsed, true), text);
}

// A file that lists the marks of a turn as ordinary added tokens does not make them harmless, nor
// does a control token of one character.
TEST(Tokenizer, LiteralTextMakesNoControlTokenWhateverTheFileSays) {
  Json json = tiny_json();
  for (Json& token : json["added_tokens"]) token["special"] = token["content"] == "\n";
  const Tokenizer t = tokenizer_of(json);
  EXPECT_TRUE(t.is_control(t.end_of_turn().value()));
  const auto literal = t.encode("<end_of_turn>\n", ControlText::kLiteral);
  EXPECT_EQ(pieces_of(t, {literal.end() - 2, literal.end()}), ">|<0x0A>");
  for (const Token id : literal) EXPECT_FALSE(t.is_control(id));
}

TEST(Tokenizer, IdsWithoutPieceHaveNoText) {
  const Tokenizer t = tokenizer_of(tiny_json());
  const Token a = t.find("a").value();
  EXPECT_EQ(t.decode(std::vector<Token>{a, t.size(), -1, 1 << 30, a}), "aa");
  EXPECT_EQ(t.piece(t.size()), "");
  EXPECT_FALSE(t.is_control(t.size()));
}

std::string random_text(uint64_t seed) {
  const std::vector<std::string> parts = {"a",  "b", "c",    "d",    "e",        " ",
                                          "▁",  "é", "<",    "<b>",  "<eos>",    "\n",
                                          "好", "😀", "\xe2", "\x96", "\xf0\x9f", "<0x41>"};
  const CounterRng rng(seed);
  std::string text;
  const uint64_t count = rng.bits(0) % 200;
  for (uint64_t i = 1; i <= count; ++i) {
    const uint64_t bits = rng.bits(i);
    text += bits % 3 == 0 ? std::string(1, static_cast<char>(bits >> 8))
                          : parts[(bits >> 8) % parts.size()];
  }
  return text;
}

TEST(Tokenizer, GivesAnyBytesBackWholeAndStreamed) {
  const Tokenizer t = tokenizer_of(tiny_json());
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed);
    const std::string expected = as_decoded(text);
    const std::vector<Token> ids = t.encode(text);
    ASSERT_EQ(t.decode(ids, true), expected) << "seed " << seed;
    for (const bool with_control : {false, true}) {
      StreamDecoder stream(t, with_control);
      std::string streamed;
      for (const Token id : ids) streamed += stream.put(id);
      ASSERT_EQ(streamed + stream.finish(), t.decode(ids, with_control)) << "seed " << seed;
    }
  }
}

// The definition, for comparison: no words, no cache, no heap.
std::vector<Token> merge_slowly(const Tokenizer& t, const Json& merges, std::vector<Token> ids) {
  while (true) {
    for (const Json& merge : merges) {
      const Token left = t.find(merge[0].get<std::string>()).value();
      const Token right = t.find(merge[1].get<std::string>()).value();
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        if (ids[i] != left || ids[i + 1] != right) continue;
        ids[i] = t.find(merge[0].get<std::string>() + merge[1].get<std::string>()).value();
        ids.erase(ids.begin() + static_cast<ptrdiff_t>(i) + 1);
        goto merged;
      }
    }
    return ids;
  merged:;
  }
}

TEST(Tokenizer, MergesAsDefined) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const CounterRng rng(seed);
    std::vector<std::string> pieces = {"a", "b", "c", "d", "▁"};
    std::vector<std::pair<std::string, std::string>> merges;
    for (uint64_t i = 0; i < 40; ++i) {
      const std::string& left = pieces[rng.bits(2 * i) % pieces.size()];
      const std::string& right = pieces[rng.bits(2 * i + 1) % pieces.size()];
      if (left.size() + right.size() > 12) continue;
      const std::pair merge{left, right};
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      pieces.push_back(left + right);
      merges.push_back(merge);
    }
    const Json json = tiny_json(merges);
    const Tokenizer t = tokenizer_of(json);
    for (const uint64_t length : {5u, 31u, 32u, 33u, 150u}) {
      std::string text;
      std::vector<Token> characters;
      for (uint64_t i = 0; i < length; ++i) {
        // Two letters make words long enough for the heap.
        const char c = "abcd "[rng.bits(1000 * length + i) % (seed % 2 == 0 ? 5 : 2)];
        text += c;
        characters.push_back(t.find(c == ' ' ? "▁" : std::string(1, c)).value());
      }
      ASSERT_EQ(t.encode(text), merge_slowly(t, json["model"]["merges"], characters))
          << "seed " << seed << " text " << text;
    }
  }
}

TEST(Tokenizer, LongRunsAreNotQuadratic) {
  const Tokenizer t = tokenizer_of(tiny_json());
  for (const char c : {' ', 'a', '\n', '<', '\xff'}) {
    const std::string text(1'000'000, c);
    EXPECT_EQ(t.decode(t.encode(text)), text);  // minutes, were it quadratic
  }
}

TEST(Tokenizer, ListsItsPieces) {
  Json json = tiny_json();
  json["added_tokens"].back()["normalized"] = true;
  const Tokenizer t = tokenizer_of(json);
  const std::vector<ScoredPiece> pieces = t.pieces();
  ASSERT_EQ(std::ssize(pieces), t.size());
  const auto of = [&](const char* text) { return pieces[static_cast<size_t>(*t.find(text))]; };
  EXPECT_EQ(of("<bos>").type, PieceType::kControl);
  EXPECT_EQ(of("<unk>").type, PieceType::kUnknown);
  EXPECT_EQ(of("<0x41>").type, PieceType::kByte);
  EXPECT_EQ(of("\n").type, PieceType::kUserDefined);
  EXPECT_EQ(of("<b>").type, PieceType::kUserDefined);
  EXPECT_EQ(of("ab").type, PieceType::kNormal);
  EXPECT_EQ(of("<").type, PieceType::kNormal);  // where an added token starts
  for (const auto& [before, after] :
       {std::pair{"ab", "abc"}, {"abc", "bc"}, {"bc", "▁ab"}, {"▁ab", "▁▁"}, {"▁▁", "a"}})
    EXPECT_GT(of(before).score, of(after).score) << before;
}

TEST(Tokenizer, IsSharedBetweenThreads) {
  const Tokenizer t = tokenizer_of(tiny_json());
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t i = 0; i < wrong.size(); ++i)
    threads.emplace_back([&t, &wrong, i] {
      for (uint64_t seed = 0; seed < 200; ++seed) {
        const std::string text = random_text(seed);
        wrong[i] += t.encode(text) != t.encode(text);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(StreamDecoder, NeverSplitsACharacter) {
  const Tokenizer t = tokenizer_of(tiny_json());
  StreamDecoder stream(t);
  const auto put = [&](const char* piece) { return stream.put(t.find(piece).value()); };
  EXPECT_EQ(put("<0xF0>"), "");
  EXPECT_EQ(put("<0x9F>"), "");
  EXPECT_EQ(put("<0x98>"), "");
  EXPECT_EQ(put("<0x80>"), "😀");
  EXPECT_EQ(put("<0xE2>"), "");
  EXPECT_EQ(put("<eos>"), "");
  EXPECT_EQ(put("a"),
            "\xe2"
            "a");
  EXPECT_EQ(put("<0xE0>"), "");
  EXPECT_EQ(put("<0x80>"), "\xe0\x80");  // overlong: nothing can complete it
  EXPECT_EQ(put("<0xC3>"), "");
  EXPECT_EQ(stream.finish(), "\xc3");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace lapidary
