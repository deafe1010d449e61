// tokenizer.model, compared with libsentencepiece itself on models that its trainer makes here.
#include <cmath>
#include <unordered_map>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "base/rng.h"
#include "base/scratch_folder.h"
#include "test_tokenizers.h"
#include "text/model.h"

namespace lapidary {
namespace {

// Lines of words that share syllables, so that there is something to merge.
class Lines : public sentencepiece::SentenceIterator {
 public:
  bool done() const override { return line_ >= 3000; }
  void Next() override { make(++line_); }
  const std::string& value() const override { return text_; }
  sentencepiece::util::Status status() const override { return {}; }
  Lines() { make(0); }

  static std::string line(uint64_t seed) {
    static const std::vector<std::string> kParts = {"ba", "be", "co", "do", "est", "ing", "un",
                                                    "a",  "é",  "ün", "好", "的",  "12",  "."};
    const CounterRng rng(seed);
    std::string text;
    for (uint64_t i = 0; i < 12 + rng.bits(0) % 20; ++i) {
      text += kParts[rng.bits(2 * i + 1) % kParts.size()];
      if (rng.bits(2 * i + 2) % 3 == 0) text += ' ';
    }
    return text;
  }

 private:
  void make(uint64_t seed) { text_ = line(seed); }
  uint64_t line_ = 0;
  std::string text_;
};

using Flags = std::unordered_map<std::string, std::string>;

// Trains with Gemma's settings, apart from what `flags` say otherwise.
std::string train(Flags flags = {}) {
  flags.merge(Flags{{"model_type", "bpe"},
                    {"vocab_size", "600"},
                    {"byte_fallback", "true"},
                    {"add_dummy_prefix", "false"},
                    {"normalization_rule_name", "identity"},
                    {"remove_extra_whitespaces", "false"},
                    {"pad_id", "0"},
                    {"eos_id", "1"},
                    {"bos_id", "2"},
                    {"unk_id", "3"},
                    {"eos_piece", "<eos>"},
                    {"bos_piece", "<bos>"},
                    {"character_coverage", "1"},
                    {"user_defined_symbols",
                     "<start_of_turn>,<end_of_turn>,\u2581\u2581,"
                     "\u2581\u2581\u2581,<b>"},
                    {"minloglevel", "9"}});
  Lines lines;
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(flags, &lines, &model);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return model;
}

const std::string& gemma_like() {
  static const std::string model = train();
  return model;
}

TEST(SentencePieceModel, GivesTheIdsOfLibsentencepiece) {
  const Tokenizer t = Tokenizer::from_sentencepiece(gemma_like(), "t.model");
  sentencepiece::SentencePieceProcessor reference;
  ASSERT_TRUE(reference.LoadFromSerializedProto(gemma_like()).ok());
  ASSERT_EQ(t.size(), reference.GetPieceSize());
  const CounterRng rng(1);
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    std::string text = Lines::line(seed + 100000);
    const std::vector<std::string> odd = {"  ", "   ", " \u2581", "<b>", "\n", "z", "😀", "<0x41>"};
    for (uint64_t i = 0; i < seed % 4; ++i)
      text.insert(text.find_last_of(" ab.12") + 1, odd[rng.bits(10 * seed + i) % odd.size()]);
    std::vector<int> expected;
    ASSERT_TRUE(reference.Encode(text, &expected).ok());
    ASSERT_EQ(t.encode(text), expected) << text;
    EXPECT_EQ(t.decode(expected), as_decoded(text));
  }
}

// The types and scores of the file itself, but for the marks of a turn, which are control tokens.
TEST(SentencePieceModel, ListsThePiecesOfTheFile) {
  const Tokenizer t = Tokenizer::from_sentencepiece(gemma_like(), "t.model");
  sentencepiece::SentencePieceProcessor reference;
  ASSERT_TRUE(reference.LoadFromSerializedProto(gemma_like()).ok());
  const std::vector<ScoredPiece> pieces = t.pieces();
  ASSERT_EQ(std::ssize(pieces), reference.GetPieceSize());
  for (int id = 0; id < t.size(); ++id) {
    const ScoredPiece& piece = pieces[static_cast<size_t>(id)];
    EXPECT_EQ(piece.text, reference.IdToPiece(id));
    EXPECT_EQ(piece.score, reference.GetScore(id)) << id;
    PieceType type = PieceType::kNormal;
    if (piece.text == "<b>" || piece.text == "▁▁" || piece.text == "▁▁▁")
      type = PieceType::kUserDefined;
    if (reference.IsByte(id)) type = PieceType::kByte;
    if (t.is_control(id)) type = PieceType::kControl;
    if (reference.IsUnknown(id)) type = PieceType::kUnknown;
    EXPECT_EQ(piece.type, type) << piece.text;
  }
}

// libsentencepiece takes what is written here for the model that it was read from.
TEST(SentencePieceModel, WrittenAgainIsReadByLibsentencepiece) {
  sentencepiece::SentencePieceProcessor original, again;
  ASSERT_TRUE(original.LoadFromSerializedProto(gemma_like()).ok());
  std::vector<ScoredPiece> pieces;
  for (int id = 0; id < original.GetPieceSize(); ++id) {
    PieceType type = PieceType::kNormal;
    if (original.IsByte(id)) type = PieceType::kByte;
    if (original.IsControl(id)) type = PieceType::kControl;
    if (original.IsUnknown(id)) type = PieceType::kUnknown;
    const std::string& text = original.IdToPiece(id);
    if (text.starts_with("<") && text.ends_with("_turn>")) type = PieceType::kUserDefined;
    if (text == "<b>" || text == "▁▁" || text == "▁▁▁") type = PieceType::kUserDefined;
    pieces.push_back({text, original.GetScore(id), type});
  }
  const std::string model = text::sentencepiece_model(pieces);
  ASSERT_TRUE(again.LoadFromSerializedProto(model).ok());
  EXPECT_EQ(again.pad_id(), 0);
  EXPECT_EQ(again.eos_id(), 1);
  EXPECT_EQ(again.bos_id(), 2);
  EXPECT_EQ(again.unk_id(), 3);
  const Tokenizer ours = Tokenizer::from_sentencepiece(model, "t.model");
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const std::string text = fmt::format(" {}  <b>😀\n<end_of_turn> ", Lines::line(seed + 200000));
    std::vector<int> expected, found;
    ASSERT_TRUE(original.Encode(text, &expected).ok());
    ASSERT_TRUE(again.Encode(text, &found).ok());
    ASSERT_EQ(found, expected) << text;
    ASSERT_EQ(ours.encode(text), expected) << text;
  }
}

TEST(SentencePieceModel, KnowsControlTokens) {
  const Tokenizer t = Tokenizer::from_sentencepiece(gemma_like(), "t.model");
  EXPECT_EQ(t.bos(), 2);
  EXPECT_EQ(t.eos(), 1);
  EXPECT_TRUE(t.is_control(t.end_of_turn().value()));  // user-defined in the file
  EXPECT_FALSE(t.is_control(t.find("<b>").value()));
  EXPECT_EQ(t.encode("<bos>a<end_of_turn>").size(), 3u);
  for (const Token id : t.encode("<bos><end_of_turn><b>", ControlText::kLiteral))
    EXPECT_FALSE(t.is_control(id));
}

TEST(SentencePieceModel, RefusesOtherModels) {
  const auto error = [](const std::string& bytes) {
    return error_of([&] { Tokenizer::from_sentencepiece(bytes, "t.model"); });
  };
  EXPECT_EQ(error(train({{"add_dummy_prefix", "true"}})),
            "t.model: normalizer_spec.add_dummy_prefix must be false");
  EXPECT_EQ(error(train({{"remove_extra_whitespaces", "true"}})),
            "t.model: normalizer_spec.remove_extra_whitespaces must be false");
  EXPECT_EQ(error(train({{"normalization_rule_name", "nfkc"}})),
            "t.model: normalizer_spec.precompiled_charsmap is not supported");
  EXPECT_EQ(error(train({{"model_type", "unigram"}, {"vocab_size", "300"}})),
            "t.model: trainer_spec.model_type is 1, only 2 (BPE) is supported");
  EXPECT_EQ(error(train({{"byte_fallback", "false"}, {"vocab_size", "200"}})),
            "t.model: trainer_spec.byte_fallback must be true");
  EXPECT_EQ(error(""), "t.model: not a SentencePiece model: no pieces");
  EXPECT_EQ(error("{\"model\": {}}"), "t.model: not a SentencePiece model, or cut short");
}

TEST(SentencePieceModel, NoCutOrFlippedByteCrashes) {
  const std::string& whole = gemma_like();
  for (size_t size = 0; size < whole.size(); size += 7)
    EXPECT_NE(error_of([&] { Tokenizer::from_sentencepiece(whole.substr(0, size), "t.model"); }),
              "no error");
  for (size_t at = 0; at < whole.size(); at += 5) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    const std::string error = error_of([&] { Tokenizer::from_sentencepiece(changed, "t.model"); });
    EXPECT_TRUE(error == "no error" || error.starts_with("t.model: ")) << error;
  }
}

TEST(SentencePieceModel, LoadsFromAFolder) {
  const ScratchFolder folder;
  folder.write("tokenizer.model", gemma_like());
  EXPECT_TRUE(Tokenizer::present(folder.path()));
  EXPECT_EQ(Tokenizer::load(folder.path()).size(), 600);
}

std::vector<ScoredPiece> tiny_pieces(std::vector<std::string>& storage) {
  for (int byte = 0; byte < 256; ++byte) storage.push_back(fmt::format("<0x{:02X}>", byte));
  std::vector<ScoredPiece> pieces = {
      {"<bos>", 0, PieceType::kControl}, {"<eos>", 0, PieceType::kControl},
      {"a", -9, PieceType::kNormal},     {"b", -9, PieceType::kNormal},
      {"ab", -1, PieceType::kNormal},    {"▁", -9, PieceType::kNormal}};
  for (const std::string& byte : storage) pieces.push_back({byte, 0, PieceType::kByte});
  return pieces;
}

TEST(PieceList, NamesThePieceAtFault) {
  std::vector<std::string> storage;
  const std::vector<ScoredPiece> good = tiny_pieces(storage);
  const auto error_with = [&](size_t index, ScoredPiece piece) {
    std::vector<ScoredPiece> pieces = good;
    pieces[index] = piece;
    return error_of([&] { Tokenizer::from_pieces(pieces, "m.gguf"); });
  };
  EXPECT_EQ(error_with(2, good[2]), "no error");
  EXPECT_EQ(error_with(3, {"a", 0, PieceType::kNormal}), "m.gguf: pieces 2 and 3 are both 'a'");
  EXPECT_EQ(error_with(3, {"", 0, PieceType::kNormal}), "m.gguf: piece 3 is empty");
  EXPECT_EQ(error_with(3, {"\xff", 0, PieceType::kNormal}),
            "m.gguf: piece 3 ('\\xff') is not UTF-8");
  EXPECT_EQ(error_with(3, {"b", NAN, PieceType::kNormal}),
            "m.gguf: piece 3 ('b') has the score nan");
  EXPECT_EQ(error_with(3, {"b", 0, PieceType{9}}), "m.gguf: piece 3 ('b') has the unknown type 9");
  EXPECT_EQ(
      error_with(4, {"ab", 0, PieceType::kUnused}),
      "m.gguf: piece 4 ('ab') is unused but can be merged from others, which is not supported");
  EXPECT_EQ(error_with(0, {"<s>", 0, PieceType::kControl}), "m.gguf: piece '<bos>' is missing");
  EXPECT_EQ(error_with(80, {"x", 0, PieceType::kNormal}), "m.gguf: byte piece <0x4A> is missing");
}

}  // namespace
}  // namespace lapidary
