#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/rng.h"
#include "base/text_hash.h"
#include "text/utf8.h"
#include "train/data_file.h"
#include "train/source.h"
#include "train/text_chunks.h"

namespace lapidary {

namespace {

struct Chunk {
  int64_t offset = 0;
  int64_t bytes = 0;
  int64_t tokens_before = 0;  // of the text, those of chunks before
  uint64_t hash = 0;
};

// The text's tokens and an <eos> are cut into windows, before each of which a <bos> goes: every
// token is predicted once.
class TextSource : public DocumentSource {
 public:
  TextSource(const std::filesystem::path& path, const Tokenizer& tokenizer, int64_t window)
      : file_(path), tokenizer_(&tokenizer), window_(window - 1) {}

  Document read(int64_t number) const override {
    const int64_t begin = number * window_, end = std::min(begin + window_, tokens_ + 1);
    Document document;
    document.append({tokenizer_->bos()}, false);
    auto chunk = std::upper_bound(chunks_.begin(), chunks_.end(), begin,
                                  [](int64_t at, const Chunk& c) { return at < c.tokens_before; });
    for (--chunk; chunk != chunks_.end() && chunk->tokens_before < end; ++chunk) {
      const std::vector<Token> ids = encoded(*chunk);
      const int64_t first = std::max(int64_t{0}, begin - chunk->tokens_before);
      const int64_t last = std::min(std::ssize(ids), end - chunk->tokens_before);
      if (first < last) document.append({ids.begin() + first, ids.begin() + last}, true);
    }
    if (end == tokens_ + 1) document.append({tokenizer_->eos()}, true);
    return document;
  }

  void add(Chunk chunk, int64_t tokens) {
    chunk.tokens_before = tokens_;
    chunks_.push_back(chunk);
    tokens_ += tokens;
  }

  const DataFile& file() const { return file_; }
  int64_t tokens() const { return tokens_; }
  int64_t windows() const { return (tokens_ + 1 + window_ - 1) / window_; }
  int64_t length(int64_t number) const {  // with its <bos>
    return 1 + std::min(window_, tokens_ + 1 - number * window_);
  }

 private:
  std::vector<Token> encoded(const Chunk& chunk) const {
    const std::string text = file_.read(chunk.offset, chunk.bytes);
    if (hash_of(text) != chunk.hash) fail("{}: was changed since it was first read", file_.name());
    return tokenizer_->encode(text);
  }

  DataFile file_;
  const Tokenizer* tokenizer_;
  int64_t window_;  // tokens besides the <bos>
  std::vector<Chunk> chunks_;
  int64_t tokens_ = 0;  // of the text
};

// What is kept of a chunk that was encoded once.
struct Outcome {
  int64_t tokens = 0;
  uint64_t hash = 0;          // of the tokens
  bool blank = false;         // white space alone
  int64_t lines = 0;          // line breaks in the chunk
  int64_t bad_line = 0;       // with bytes that are not UTF-8, from 1; 0: none
  int64_t reserved_line = 0;  // with the reserved token, likewise
};

Outcome outcome_of(std::string_view text, const Tokenizer& tokenizer,
                   const std::optional<Token>& reserved) {
  const auto breaks = [](std::string_view part) {
    return std::count(part.begin(), part.end(), '\n');
  };
  const size_t valid = text::utf8_bytes(text);
  if (valid < text.size()) return {.bad_line = breaks(text.substr(0, valid)) + 1};
  Outcome outcome{.blank = text.find_first_not_of(" \t\r\n") == std::string_view::npos,
                  .lines = breaks(text)};
  const std::vector<Token> ids = tokenizer.encode(text);
  outcome.tokens = std::ssize(ids);
  outcome.hash = hash_tokens(outcome.hash, ids);
  if (!reserved) return outcome;
  if (const auto found = std::ranges::find(ids, *reserved); found != ids.end())
    outcome.reserved_line = breaks(tokenizer.decode({ids.begin(), found}, true)) + 1;
  return outcome;
}

// Reads the file once, a piece at a time, and adds its chunks. Returns the tokens' fingerprint.
uint64_t add_chunks(TextSource& source, const Tokenizer& tokenizer,
                    const std::optional<Token>& reserved, ThreadPool& pool, const Watch& watch) {
  const DataFile& file = source.file();
  uint64_t fingerprint = 0;
  bool blank = true;
  int64_t begin = 0, lines = 0;  // of `text`
  for (std::string text; begin < file.size();) {
    watch.throw_if_stopped();
    const int64_t from = begin + std::ssize(text);
    text += file.read(from, std::min(kReadBytes, file.size() - from));
    const bool last = begin + std::ssize(text) == file.size();
    std::vector<std::string_view> parts;
    size_t used = 0;
    while (const size_t bytes = first_chunk(std::string_view(text).substr(used), last)) {
      parts.push_back(std::string_view(text).substr(used, bytes));
      used += bytes;
    }
    std::vector<Outcome> outcomes(parts.size());
    pool.parallel_for(std::ssize(parts), [&](int64_t first, int64_t end, int) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(end); ++i)
        outcomes[i] = outcome_of(parts[i], tokenizer, reserved);
    });
    for (size_t i = 0; i < parts.size(); ++i) {
      const Outcome& outcome = outcomes[i];
      if (outcome.bad_line > 0)
        fail("{}:{}: not valid UTF-8", file.name(), lines + outcome.bad_line);
      if (outcome.reserved_line > 0)
        refuse_reserved(*reserved, tokenizer,
                        fmt::format("{}:{}", file.name(), lines + outcome.reserved_line));
      lines += outcome.lines;
      blank = blank && outcome.blank;
      fingerprint = mix64(fingerprint ^ outcome.hash);
      source.add({begin, std::ssize(parts[i]), 0, hash_of(parts[i])}, outcome.tokens);
      begin += std::ssize(parts[i]);
    }
    text.erase(0, used);
    watch.report(begin, file.size());
  }
  if (begin > 0 && blank) fail("{}: is white space alone", file.name());
  return fingerprint;
}

}  // namespace

size_t first_chunk(std::string_view text, bool last) {
  const size_t all = last ? text.size() : 0;
  if (text.size() <= kChunkBytes) return all;
  const size_t line = text.find('\n', kChunkBytes);
  if (line < kLongestChunkBytes) {
    const size_t next = text.find_first_not_of('\n', line);
    return next == std::string_view::npos ? all : next;
  }
  if (text.size() <= kLongestChunkBytes) return all;
  size_t end = text.rfind(' ', kLongestChunkBytes);
  while (end != std::string_view::npos && end > 0 && text[end - 1] == ' ') --end;
  if (end != std::string_view::npos && end > 0) return end;
  end = kLongestChunkBytes;
  while (end > kChunkBytes && (text[end] & 0xc0) == 0x80) --end;
  return end;
}

ReadSource read_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                     const DataOptions& options, ThreadPool& pool, const Watch& watch) {
  const auto source = std::make_shared<TextSource>(path, tokenizer, options.sequence_length);
  ReadSource made{source, {}, {.documents = 1}, 0};
  made.fingerprint = add_chunks(*source, tokenizer, options.documents.reserved, pool, watch);
  if (source->tokens() == 0) fail("{}: is empty", source->file().name());
  made.report.longest = source->tokens() + 2;
  for (int64_t i = 0; i < source->windows(); ++i)
    made.sequences.push_back({{i, 0, source->length(i)}, source->length(i) - 1});
  return made;
}

}  // namespace lapidary
