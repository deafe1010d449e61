#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "base/fail.h"
#include "base/rng.h"
#include "train/data_file.h"
#include "train/source.h"

namespace lapidary {

namespace {

constexpr int64_t kLongestLine = int64_t{64} << 20;

// A record's line in the file.
struct Place {
  int64_t offset = 0;
  int64_t bytes = 0;
  int64_t line = 0;  // from 1
  uint64_t hash = 0;
};

class JsonlSource : public DocumentSource {
 public:
  JsonlSource(const std::filesystem::path& path, const Tokenizer& tokenizer,
              const DocumentOptions& options)
      : file_(path), tokenizer_(&tokenizer), options_(options) {}

  Document read(int64_t document) const override {
    const Place& place = places_[static_cast<size_t>(document)];
    const std::string line = file_.read(place.offset, place.bytes);
    if (hash_of(line) != place.hash)
      fail("{}: was changed since it was first read", where(place.line));
    return make(line, place.line);
  }

  Document make(std::string_view line, int64_t number) const {
    const std::string at = where(number);
    return make_document(parse_record(line, at), *tokenizer_, options_, at);
  }
  std::string where(int64_t line) const { return fmt::format("{}:{}", file_.name(), line); }

  const DataFile& file() const { return file_; }
  std::vector<Place>& places() { return places_; }

 private:
  DataFile file_;
  const Tokenizer* tokenizer_;
  DocumentOptions options_;
  std::vector<Place> places_;  // of the documents
};

// Lines that are not blank, as many as lie in a piece of the file.
class LineReader {
 public:
  explicit LineReader(const JsonlSource& source) : source_(source) {}

  // The next lines, or none at the end of the file. Views are valid until the next call.
  std::vector<std::pair<Place, std::string_view>> next() {
    std::vector<std::pair<Place, std::string_view>> lines;
    while (lines.empty() && !(at_end() && text_.size() == used_)) {
      fill();
      for (size_t end; (end = line_end()) != std::string::npos;) {
        const std::string_view line = std::string_view(text_).substr(used_, end - used_);
        ++line_;
        if (line.find_first_not_of(" \t\r") != std::string_view::npos)
          lines.push_back(
              {{begin_ + static_cast<int64_t>(used_), std::ssize(line), line_, hash_of(line)},
               line});
        used_ = std::min(end + 1, text_.size());
      }
    }
    return lines;
  }
  int64_t bytes_read() const { return begin_ + static_cast<int64_t>(used_); }

 private:
  bool at_end() const { return begin_ + std::ssize(text_) == source_.file().size(); }

  // Drops the lines that were used and reads on.
  void fill() {
    begin_ += static_cast<int64_t>(used_);
    text_.erase(0, used_);
    used_ = 0;
    if (std::ssize(text_) > kLongestLine)
      fail("{}: more than {} bytes", source_.where(line_ + 1), kLongestLine);
    const int64_t from = begin_ + std::ssize(text_);
    text_ += source_.file().read(from, std::min(kReadBytes, source_.file().size() - from));
  }

  // Where the line at used_ ends; npos where that is not in text_.
  size_t line_end() const {
    const size_t end = text_.find('\n', used_);
    return end == std::string::npos && at_end() && used_ < text_.size() ? text_.size() : end;
  }

  const JsonlSource& source_;
  std::string text_;
  int64_t begin_ = 0;  // of text_, in the file
  size_t used_ = 0;
  int64_t line_ = 0;
};

// What is kept of a document that was made once.
struct Outcome {
  std::vector<CountedSequence> sequences;
  int64_t tokens = 0;
  uint64_t hash = 0;
  std::string error;
};

std::vector<CountedSequence> cut(const Document& document, const DataOptions& options) {
  const int64_t n = std::ssize(document.tokens);
  std::vector<CountedSequence> sequences;
  for (int64_t first = 0; first < n;) {
    const int64_t front = first > 0 ? 1 : 0;  // a <bos>
    const int64_t taken = std::min(n - first, options.sequence_length - front);
    const auto begin = document.counted.begin() + first;
    const int64_t targets = std::count(begin, begin + taken, uint8_t{1});
    sequences.push_back({{0, first, taken + front}, targets});
    first += taken;
    if (options.long_documents != LongDocuments::kSplit) break;
  }
  return sequences;
}

Outcome outcome_of(const JsonlSource& source, const Place& place, std::string_view line,
                   const DataOptions& options) {
  Outcome outcome;
  try {
    const Document document = source.make(line, place.line);
    outcome.tokens = std::ssize(document.tokens);
    outcome.sequences = cut(document, options);
    outcome.hash = mix64(place.line);
    for (size_t i = 0; i < document.tokens.size(); ++i)
      outcome.hash = mix64(outcome.hash ^
                           (static_cast<uint64_t>(document.tokens[i]) << 1 | document.counted[i]));
  } catch (const Error& e) {
    outcome.error = e.what();
  }
  return outcome;
}

// Documents that are longer than a sequence, for the error that refuses them.
struct TooLong {
  int64_t count = 0;
  int64_t line = 0, tokens = 0;  // of the first

  [[noreturn]] void refuse(const JsonlSource& source, const DataReport& report,
                           const DataOptions& options) const {
    throw Error(ErrorKind::kInput,
                fmt::format("{}: {} tokens, more than the {} of a sequence, as {} of {} documents "
                            "have; the longest has {}",
                            source.where(line), tokens, options.sequence_length, count,
                            report.documents, report.longest),
                "allow longer sequences, or have long documents truncated or split");
  }
};

void add(Outcome&& outcome, const DataOptions& options, ReadSource& made) {
  DataReport& report = made.report;
  const int64_t document = report.documents++;
  report.longest = std::max(report.longest, outcome.tokens);
  made.fingerprint = mix64(made.fingerprint ^ outcome.hash);
  if (outcome.tokens > options.sequence_length) {
    if (options.long_documents == LongDocuments::kSplit) {
      ++report.split;
    } else {
      ++report.truncated;
      report.truncated_away += outcome.tokens - options.sequence_length;
    }
  }
  for (CountedSequence& made_of_it : outcome.sequences) {
    made_of_it.sequence.document = document;
    made.sequences.push_back(made_of_it);
  }
}

}  // namespace

ReadSource read_jsonl(const std::filesystem::path& path, const Tokenizer& tokenizer,
                      const DataOptions& options, ThreadPool& pool, const Watch& watch) {
  const auto source = std::make_shared<JsonlSource>(path, tokenizer, options.documents);
  ReadSource made{source, {}, {}, 0};
  TooLong too_long;
  LineReader reader(*source);
  for (auto lines = reader.next(); !lines.empty(); lines = reader.next()) {
    watch.throw_if_stopped();
    std::vector<Outcome> outcomes(lines.size());
    pool.parallel_for(std::ssize(lines), [&](int64_t first, int64_t last, int) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
        outcomes[i] = outcome_of(*source, lines[i].first, lines[i].second, options);
    });
    for (size_t i = 0; i < lines.size(); ++i) {
      if (!outcomes[i].error.empty()) fail("{}", outcomes[i].error);
      const int64_t tokens = outcomes[i].tokens;
      if (tokens > options.sequence_length && too_long.count++ == 0)
        too_long = {1, lines[i].first.line, tokens};
      source->places().push_back(lines[i].first);
      add(std::move(outcomes[i]), options, made);
    }
    watch.report(reader.bytes_read(), source->file().size());
  }
  if (too_long.count > 0 && options.long_documents == LongDocuments::kRefuse)
    too_long.refuse(*source, made.report, options);
  if (made.report.documents == 0)
    fail("{}: no documents in it, expected one on each line", source->file().name());
  return made;
}

}  // namespace lapidary
