#include "train/data.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/rng.h"
#include "io/test_files.h"
#include "text/test_tokenizers.h"
#include "train/text_chunks.h"

namespace lapidary {
namespace {

class Data : public ::testing::Test {
 protected:
  TrainingData open(const std::string& name, const DataOptions& options = {}) {
    return open_data(scratch.path() / name, tokenizer, options, pool);
  }
  std::string refused(const std::string& name, const DataOptions& options = {}) {
    return error_of([&] { open(name, options); }, scratch.path().string() + "/");
  }
  // The tokens of each sequence as text, without <bos> and <eos>.
  std::vector<std::string> texts(const Dataset& data) {
    std::vector<std::string> texts;
    for (int64_t i = 0; i < data.size(); ++i) {
      const Document document = data.read(i);
      EXPECT_EQ(std::ssize(document.tokens), data.length(i));
      EXPECT_EQ(document.counted.size(), document.tokens.size());
      EXPECT_EQ(document.tokens.front(), tokenizer.bos());
      EXPECT_EQ(document.counted.front(), 0);
      texts.push_back(tokenizer.decode(document.tokens));
    }
    return texts;
  }
  int64_t tokens_of(const std::string& text) { return std::ssize(tokenizer.encode(text)); }

  const Tokenizer tokenizer = Tokenizer::load(LAPIDARY_SOURCE_DIR "/models/tiny");
  ScratchFolder scratch;
  ThreadPool pool{2};
};

using Texts = std::vector<std::string>;

TEST_F(Data, ReadsLinesInOrderAndSkipsBlankOnes) {
  scratch.write("t.jsonl",
                "{\"text\": \"one\"}\r\n\n  \n{\"text\": \"two\"}\n{\"text\": \"three\"}");
  const TrainingData data = open("t.jsonl");
  EXPECT_EQ(texts(*data.train), (Texts{"one", "two", "three"}));
  EXPECT_EQ(data.valid, nullptr);
  const DataReport& report = data.train->report();
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.sequences, 3);
  EXPECT_EQ(report.tokens, tokens_of("one") + tokens_of("two") + tokens_of("three") + 6);
  EXPECT_EQ(report.targets, report.tokens - 3);
}

TEST_F(Data, NamesTheFirstLineThatIsWrong) {
  scratch.write("t.jsonl", "\n{\"text\": \"one\"}\n{\"text\": 2}\n{\"text\"\n");
  EXPECT_EQ(refused("t.jsonl"), "t.jsonl:3: field 'text': expected a string, found 2");
  scratch.write("t.jsonl", "{\"text\": \"one\"}\n{\"text\": \"a\xff\"}\n");
  EXPECT_EQ(refused("t.jsonl"), "t.jsonl:2: not valid UTF-8 (stopped at byte 12)");
  scratch.write(
      "t.jsonl",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]})");
  EXPECT_EQ(refused("t.jsonl"), "t.jsonl:1: message 2: role 'user' where it is the model's turn");
}

TEST_F(Data, FilesThatAreNotData) {
  EXPECT_EQ(refused("none.jsonl"), "none.jsonl: No such file or directory");
  scratch.write("t.jsonl", "");
  EXPECT_EQ(refused("t.jsonl"), "t.jsonl: no documents in it, expected one on each line");
  scratch.write("t.jsonl", "\n \n");
  EXPECT_EQ(refused("t.jsonl"), "t.jsonl: no documents in it, expected one on each line");
  scratch.write("t.txt", "");
  EXPECT_EQ(refused("t.txt"), "t.txt: is empty");
  scratch.write("t.json", "[]");
  EXPECT_EQ(refused("t.json"), "t.json: one JSON document");
  std::filesystem::create_directory(scratch.path() / "d");
  EXPECT_EQ(refused("d"), "d: no train.jsonl or train.txt in this folder");
  scratch.write("t.txt", "one\ntwo\n\xfe\n");
  EXPECT_EQ(refused("t.txt"), "t.txt:3: not valid UTF-8");
}

TEST_F(Data, LinesLongerThanAPieceOfTheFile) {
  const std::string first(5 << 20, 'a');
  scratch.write("t.jsonl", "{\"id\": \"" + first + "\", \"text\": \"one\"}\n{\"text\": \"two\"}\n");
  EXPECT_EQ(texts(*open("t.jsonl").train), (Texts{"one", "two"}));
}

TEST_F(Data, ManyPiecesOfAFileKeepTheirLineNumbers) {
  const std::string filler(1000, 'x');
  std::string lines;
  for (int i = 0; i < 9000; ++i)
    lines += fmt::format("{{\"text\": \"{}\", \"id\": \"{}\"}}\n", i, filler);
  scratch.write("t.jsonl", lines);
  const TrainingData data = open("t.jsonl");
  ASSERT_EQ(data.train->size(), 9000);
  EXPECT_EQ(tokenizer.decode(data.train->read(8765).tokens), "8765");
  scratch.write("t.jsonl", lines + "{}");
  EXPECT_EQ(refused("t.jsonl"),
            "t.jsonl:9001: none of the fields text, prompt and completion, messages");
}

TEST_F(Data, LongDocumentsAreCountedNeverCutInSilence) {
  const std::string text = "To be, or not to be, that is the question";
  const int64_t n = tokens_of(text) + 2;
  scratch.write("t.jsonl", "{\"text\": \"a\"}\n{\"text\": \"" + text + "\"}\n{\"text\": \"" + text +
                               " of questions\"}");
  DataOptions options{.sequence_length = 8};
  EXPECT_EQ(refused("t.jsonl", options),
            fmt::format("t.jsonl:2: {} tokens, more than the 8 of a sequence, as 2 of 3 documents "
                        "have; the longest has {}",
                        n, tokens_of(text + " of questions") + 2));

  options.long_documents = LongDocuments::kTruncate;
  const auto truncated = open("t.jsonl", options);
  EXPECT_EQ(truncated.train->report().truncated, 2);
  EXPECT_EQ(truncated.train->report().truncated_away,
            n - 8 + tokens_of(text + " of questions") + 2 - 8);
  const auto whole = tokenizer.encode(text);
  const Document part = truncated.train->read(1);
  ASSERT_EQ(part.tokens.size(), 8u);
  EXPECT_TRUE(std::equal(part.tokens.begin() + 1, part.tokens.end(), whole.begin()));

  options.long_documents = LongDocuments::kSplit;
  const auto split = open("t.jsonl", options);
  EXPECT_EQ(split.train->report().split, 2);
  EXPECT_EQ(split.train->report().truncated, 0);
  std::vector<Token> joined;
  for (int64_t i = 1; i < split.train->size(); ++i) {
    const Document piece = split.train->read(i);
    EXPECT_LE(std::ssize(piece.tokens), 8);
    EXPECT_EQ(piece.tokens.front(), tokenizer.bos());
    joined.insert(joined.end(), piece.tokens.begin() + 1, piece.tokens.end());
    if (joined.back() == tokenizer.eos()) break;
  }
  joined.pop_back();
  EXPECT_EQ(joined, whole);
}

TEST_F(Data, SequencesInWhichNothingCountsAreLeftOut) {
  scratch.write("t.jsonl",
                R"({"prompt": "To be, or not to be, that is the question", "completion": "Yes"})"
                "\n{\"text\": \"one\"}\n");
  DataOptions options{.sequence_length = 8, .long_documents = LongDocuments::kTruncate};
  const auto data = open("t.jsonl", options);
  EXPECT_EQ(texts(*data.train), (Texts{"one"}));
  EXPECT_EQ(data.train->report().without_targets, 1);
  scratch.write("u.jsonl",
                R"({"prompt": "To be, or not to be, that is the question", "completion": "Yes"})");
  EXPECT_EQ(refused("u.jsonl", options), "u.jsonl: nothing in it that a loss would count");
}

TEST_F(Data, FolderWithBothSides) {
  scratch.write("train.jsonl", "{\"text\": \"one\"}\n");
  scratch.write("test.jsonl", "not read");
  EXPECT_EQ(open("").valid, nullptr);
  scratch.write("valid.jsonl", "{\"text\": \"two\"}\n");
  const TrainingData data = open("");
  EXPECT_EQ(texts(*data.train), (Texts{"one"}));
  EXPECT_EQ(texts(*data.valid), (Texts{"two"}));
  EXPECT_NE(refused("", {.valid_fraction = 0.1}).find("--valid-fraction: 0.1 given, but"),
            std::string::npos);
}

TEST_F(Data, ValidationIsChosenBySeed) {
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"text\": \"{}\"}}\n", i);
  scratch.write("t.jsonl", lines);
  const auto a = open("t.jsonl", {.valid_fraction = 0.25, .seed = 1});
  const auto b = open("t.jsonl", {.valid_fraction = 0.25, .seed = 1});
  const auto c = open("t.jsonl", {.valid_fraction = 0.25, .seed = 2});
  EXPECT_EQ(a.valid->size(), 10);
  EXPECT_EQ(a.train->size(), 30);
  EXPECT_EQ(texts(*a.valid), texts(*b.valid));
  EXPECT_NE(texts(*a.valid), texts(*c.valid));
  Texts all = texts(*a.train);
  for (const std::string& text : texts(*a.valid)) all.push_back(text);
  EXPECT_EQ(std::set(all.begin(), all.end()).size(), 40u);
  scratch.write("u.jsonl", "{\"text\": \"one\"}\n");
  EXPECT_EQ(refused("u.jsonl", {.valid_fraction = 0.1}),
            "--valid-fraction: 0.1 of 1 documents leaves nothing to train on");
}

TEST_F(Data, FingerprintTellsDataApart) {
  scratch.write("a.jsonl", R"({"prompt": "one", "completion": "two"})");
  scratch.write("b.jsonl", R"({"prompt": "one", "completion": "two."})");
  const uint64_t a = open("a.jsonl").fingerprint;
  EXPECT_EQ(open("a.jsonl").fingerprint, a);
  EXPECT_NE(open("b.jsonl").fingerprint, a);
  DataOptions all;
  all.documents.prompt_loss = true;
  EXPECT_NE(open("a.jsonl", all).fingerprint, a);
}

TEST_F(Data, AFileThatChangesIsNoticed) {
  scratch.write("t.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  scratch.write("t.txt", "one two");
  const auto lines = open("t.jsonl"), text = open("t.txt");
  scratch.write("t.jsonl", "{\"text\": \"one\"}\n{\"text\": \"owt\"}\n");
  scratch.write("t.txt", "one three");
  const std::string folder = scratch.path().string() + "/";
  EXPECT_EQ(tokenizer.decode(lines.train->read(0).tokens), "one");
  EXPECT_EQ(error_of([&] { lines.train->read(1); }, folder),
            "t.jsonl:2: was changed since it was first read");
  EXPECT_EQ(error_of([&] { text.train->read(0); }, folder),
            "t.txt: was changed since it was first read");
  scratch.write("t.jsonl", "");
  EXPECT_EQ(error_of([&] { lines.train->read(1); }, folder),
            "t.jsonl: ends at byte 16, expected 32: it was changed since it was first read");
}

TEST_F(Data, StopsWhenAsked) {
  scratch.write("t.jsonl", "{\"text\": \"one\"}\n");
  scratch.write("t.txt", "one");
  std::stop_source stop;
  stop.request_stop();
  for (const char* name : {"t.jsonl", "t.txt"}) {
    try {
      open_data(scratch.path() / name, tokenizer, {}, pool, {{}, stop.get_token()});
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
    }
    int64_t last = 0;
    open_data(scratch.path() / name, tokenizer, {}, pool,
              {[&](int64_t done, int64_t total) {
                 last = done;
                 EXPECT_LE(done, total);
               },
               {}});
    EXPECT_EQ(last, std::ssize(scratch.read(name)));
  }
}

TEST_F(Data, ATextOfWhiteSpaceAlone) {
  scratch.write("t.txt", " \n\t\n  \n");
  EXPECT_EQ(refused("t.txt"), "t.txt: is white space alone");
}

TEST_F(Data, OptionsOutOfRange) {
  scratch.write("t.jsonl", "{\"text\": \"one\"}\n");
  EXPECT_EQ(refused("t.jsonl", {.sequence_length = 1}),
            "--sequence-length: 1 given, expected 2 or more tokens");
  EXPECT_EQ(refused("t.jsonl", {.valid_fraction = 1}),
            "--valid-fraction: 1 given, expected 0 or more and less than 1");
}

// ---- plain text

// A text of many chunks: words, runs of spaces and line breaks, and lines longer than a chunk.
std::string long_text() {
  const CounterRng rng(8);
  std::string text;
  for (uint64_t i = 0; text.size() < 60000; ++i) {
    text += fmt::format("w{}", rng.bits(i) % 1000);
    const uint64_t next = rng.bits(i + 1000000) % 100;
    text += next < 3 ? "\n\n\n" : next < 6 ? "\n" : next < 8 ? "   " : " ";
    if (i % 3000 == 2999) text += std::string(9000, 'y');
  }
  return text;
}

void expect_chunks_to_join(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<Token> joined;
  size_t chunks = 0;
  for (size_t at = 0; at < text.size(); ++chunks) {
    const size_t size = first_chunk(std::string_view(text).substr(at), true);
    ASSERT_GT(size, 0u);
    const auto ids = tokenizer.encode(std::string_view(text).substr(at, size));
    joined.insert(joined.end(), ids.begin(), ids.end());
    at += size;
  }
  EXPECT_GT(chunks, 5u);
  EXPECT_EQ(joined, tokenizer.encode(text));
}

TEST_F(Data, ChunksOfATextGiveTheIdsOfTheWhole) {
  expect_chunks_to_join(tokenizer, long_text());
  for (const char* name : {"gemma2", "gemma3"})
    if (Tokenizer::present(real_tokenizer(name)))
      expect_chunks_to_join(Tokenizer::load(real_tokenizer(name)), long_text());
}

TEST(TextChunks, EndAfterLineBreaksOrWithinLongLines) {
  const std::string line(kChunkBytes - 1, 'a');
  EXPECT_EQ(first_chunk("abc", false), 0u);
  EXPECT_EQ(first_chunk("abc", true), 3u);
  EXPECT_EQ(first_chunk(line + "\n\nb", true), line.size() + 2);
  EXPECT_EQ(first_chunk(line + "ab\n\n\nc", true), line.size() + 5);
  EXPECT_EQ(first_chunk(line + "ab\n\n\n", false), 0u);  // more line breaks may come
  EXPECT_EQ(first_chunk(line + "ab\n\n\n", true), line.size() + 5);
  const std::string endless(kLongestChunkBytes, 'a');
  EXPECT_EQ(first_chunk(endless, false), 0u);
  EXPECT_EQ(first_chunk(endless + "aa", false), kLongestChunkBytes);
  EXPECT_EQ(first_chunk("ab  " + endless, false), 2u);
  const std::string wide = endless.substr(1) + "\u00e9\u00e9";
  EXPECT_EQ(first_chunk(wide, false), kLongestChunkBytes - 1);
}

TEST_F(Data, TextIsCutIntoWindowsThatPredictEveryTokenOnce) {
  const std::string text = long_text();
  scratch.write("t.txt", text);
  for (const int64_t length : {2, 100, 5000, 1000000}) {
    if (length == 2 && text.size() > 100) scratch.write("t.txt", text.substr(0, 100));
    const auto data = open("t.txt", {.sequence_length = length});
    std::vector<Token> joined;
    for (int64_t i = 0; i < data.train->size(); ++i) {
      const Document window = data.train->read(i);
      ASSERT_EQ(std::ssize(window.tokens), data.train->length(i));
      ASSERT_LE(std::ssize(window.tokens), length);
      ASSERT_TRUE(std::ssize(window.tokens) == length || i + 1 == data.train->size());
      EXPECT_EQ(window.tokens.front(), tokenizer.bos());
      EXPECT_EQ(std::count(window.counted.begin(), window.counted.end(), 1),
                std::ssize(window.tokens) - 1);
      joined.insert(joined.end(), window.tokens.begin() + 1, window.tokens.end());
    }
    std::vector<Token> expected = tokenizer.encode(scratch.read("t.txt"));
    EXPECT_EQ(data.train->report().targets, std::ssize(expected) + 1);
    expected.push_back(tokenizer.eos());
    EXPECT_EQ(joined, expected);
    scratch.write("t.txt", text);
  }
}

TEST_F(Data, ValidationOfATextIsItsEnd) {
  scratch.write("t.txt", long_text());
  const auto whole = open("t.txt", {.sequence_length = 100});
  const auto parts = open("t.txt", {.sequence_length = 100, .valid_fraction = 0.1});
  Texts all = texts(*parts.train);
  for (const std::string& text : texts(*parts.valid)) all.push_back(text);
  EXPECT_EQ(all, texts(*whole.train));
  EXPECT_EQ(parts.valid->size(), std::llround(0.1 * static_cast<double>(whole.train->size())));
}

}  // namespace
}  // namespace lapidary
