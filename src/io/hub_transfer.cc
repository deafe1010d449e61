#include "io/hub_transfer.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <thread>
#include <vector>

#include "base/fail.h"
#include "io/hub_name.h"
#include "io/hub_refusal.h"
#include "io/patience.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr size_t kMaxListingBytes = size_t{32} << 20;

// Waits until it is time for another attempt; throws what `answer` means when there is none.
void again(PullState& state, Patience& patience, const HttpAnswer& answer,
           const std::string& file) {
  if (!patience.again(answer, file.empty() ? state.name.text() : file))
    fail_answer(answer, state.access, state.name, file);
}

int64_t number_in(const std::string& text) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : -1;
}

// W/"abc" and "abc" are abc.
std::string without_quotes(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

std::string file_url(const PullState& state, const std::string& commit, const std::string& file) {
  return fmt::format("{}/{}/resolve/{}/{}", state.access.endpoint, state.name.repo, commit,
                     url_encoded(file, true));
}

// What fetching one file's content shares between its connections.
struct Content {
  PullState& state;
  const std::string& commit;
  const HubFile& file;
  PartFile& part;
  std::mutex mutex;  // of source.url
  Source source;
  std::atomic<bool> no_ranges = false;  // the server sends the whole file whatever is asked for

  std::string url() {
    const std::lock_guard lock(mutex);
    return source.url;
  }
  // A link that the hub signed for a while has run out.
  void renew_url(HttpClient& client) {
    const Source renewed = fetch_source(state, client, commit, file);
    const std::lock_guard lock(mutex);
    source.url = renewed.url;
  }
};

// Fails unless the answer carries the bytes from `begin` to no further than `end`.
void check_extent(const Content& content, const HttpAnswer& answer, int64_t begin, int64_t end) {
  const auto refuse = [&](const std::string& found, const std::string& expected) {
    fail("{}: {}: {} sends {}, expected {}", content.state.name.text(), content.file.name,
         origin_of(answer.url), printable(found), expected);
  };
  if (answer.status == 206) {
    const std::string range = answer.header("content-range");
    const std::string start = fmt::format("bytes {}-", begin);
    const std::string total = fmt::format("/{}", content.part.size());
    const size_t slash = range.find('/');
    const bool whole = range.ends_with(total) || range.ends_with("/*");
    const int64_t last = range.starts_with(start) && slash != range.npos
                             ? number_in(range.substr(start.size(), slash - start.size()))
                             : -1;
    if (!whole || last < begin || last >= end)
      refuse(fmt::format("Content-Range '{}'", range),
             fmt::format("'{}{}{}'", start, end - 1, total));
    return;
  }
  const std::string length = answer.header("content-length");
  if (!length.empty() && number_in(length) != content.part.size())
    refuse(length + " bytes", fmt::format("{}", content.part.size()));
}

// The bytes of a range or, once the server is known to give no ranges, the whole file over again.
void fetch_range(Content& content, HttpClient& client, PartFile::Range range, bool with_ranges) {
  Patience patience(content.state.access, content.state.stopped);
  const int64_t size = content.part.size();
  for (int64_t at = range.begin; at < range.end;) {
    if (!with_ranges) at = range.begin;
    const bool whole = at == 0 && range.end == size;
    int64_t gained = 0;
    bool first = true;
    const HttpAnswer answer = client.get(
        content.url(), whole ? "" : fmt::format("{}-{}", at, range.end - 1),
        [&](const HttpAnswer& head, std::span<const std::byte> piece) {
          if (head.status != 206 && !whole) content.no_ranges = true;
          if (content.no_ranges && with_ranges && !whole) return false;
          if (first) check_extent(content, head, at, range.end);
          first = false;
          if (std::ssize(piece) > range.end - at)
            fail("{}: {}: {} sends more bytes than the {} expected", content.state.name.text(),
                 content.file.name, origin_of(head.url), range.end);
          const int64_t put = content.part.put(at, piece);
          content.state.count_downloaded(put);
          gained += put;
          at += std::ssize(piece);
          return true;
        });
    if (at == range.end || (content.no_ranges && with_ranges)) return;
    if (gained > 0) patience.something_came();
    const bool expired = (answer.status == 401 || answer.status == 403 || answer.status == 404) &&
                         origin_of(answer.url) != origin_of(content.state.access.endpoint);
    if (!expired && !is_transient(answer))
      fail_answer(answer, content.state.access, content.state.name, content.file.name);
    again(content.state, patience, answer, content.file.name);
    if (expired) content.renew_url(client);
  }
}

}  // namespace

PullState::PullState(const HubAccess& access_given, const HubName& name_given, const Watch& watch)
    : access(access_given),
      name(name_given),
      stopped([this] { return failed_ || watch_.stop.stop_requested(); }),
      watch_(watch) {}

void PullState::count(int64_t bytes) {
  done_ += bytes;
  const std::unique_lock lock(reporting_, std::try_to_lock);
  if (lock.owns_lock()) watch_.report(done_, total_);
}

void PullState::count_downloaded(int64_t bytes) {
  downloaded_ += bytes;
  count(bytes);
}

void PullState::throw_if_stopped() const {
  if (stopped()) throw Error(ErrorKind::kInterrupted, "interrupted");
}

void PullState::on_threads(int threads, const std::function<void(HttpClient&)>& work) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::jthread> running;
  for (int i = 0; i < threads; ++i)
    running.emplace_back([&] {
      try {
        HttpClient client(access, stopped);
        work(client);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        failed_ = true;
      }
    });
  running.clear();  // joins
  if (first) std::rethrow_exception(first);
}

HubListing fetch_listing(PullState& state, HttpClient& client) {
  const std::string url =
      fmt::format("{}/api/models/{}/revision/{}?blobs=true", state.access.endpoint, state.name.repo,
                  url_encoded(state.name.revision_or_main(), false));
  Patience patience(state.access, state.stopped);
  for (;;) {
    std::string text;
    const HttpAnswer answer =
        client.get(url, "", [&](const HttpAnswer&, std::span<const std::byte> piece) {
          if (text.size() + piece.size() > kMaxListingBytes)
            fail("{}: the list of its files has more than {} bytes", state.name.text(),
                 kMaxListingBytes);
          text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
          return true;
        });
    if (answer.ok() && answer.broken.empty())
      return parse_hub_listing(text, "the hub's list of " + state.name.text());
    if (!is_transient(answer)) fail_answer(answer, state.access, state.name, "");
    again(state, patience, answer, "");
  }
}

Source fetch_source(PullState& state, HttpClient& client, const std::string& commit,
                    const HubFile& file) {
  Patience patience(state.access, state.stopped);
  HttpAnswer answer;
  for (;;) {
    answer = client.head(file_url(state, commit, file.name));
    if (answer.broken.empty() && (answer.ok() || !answer.redirect.empty())) break;
    if (!is_transient(answer)) fail_answer(answer, state.access, state.name, file.name);
    again(state, patience, answer, file.name);
  }
  const auto refuse = [&](std::string_view field, const std::string& found,
                          std::string_view expected) {
    fail("{}: {}: the hub's {} is '{}', expected {}", state.name.text(), file.name, field,
         printable(found), expected);
  };
  if (const std::string found = answer.header("x-repo-commit"); found != commit)
    refuse("X-Repo-Commit", found, commit);
  Source source;
  const std::string linked = answer.header("x-linked-etag");
  source.blob = without_quotes(linked.empty() ? answer.header("etag") : linked);
  if (!is_blob_name(source.blob)) refuse("ETag", source.blob, "a hash");
  if (!file.blob.empty() && source.blob != file.blob) refuse("ETag", source.blob, file.blob);
  std::string size = answer.header("x-linked-size");
  if (size.empty() && answer.redirect.empty()) size = answer.header("content-length");
  source.size = size.empty() ? file.size : number_in(size);
  if (source.size < 0) refuse("size", size, "a number of bytes");
  if (file.size >= 0 && source.size != file.size)
    refuse("size", size, fmt::format("{} as in its list", file.size));
  source.url = answer.redirect.empty() ? answer.url : answer.redirect;
  return source;
}

void fetch_content(PullState& state, HttpClient& client, const std::string& commit,
                   const HubFile& file, Source source, PartFile& part, bool in_parallel) {
  Content content{state, commit, file, part, {}, std::move(source)};
  const auto work = [&](HttpClient& connection) {
    while (const auto range = content.no_ranges ? std::nullopt : part.claim())
      fetch_range(content, connection, *range, true);
  };
  part.release_claims();
  if (in_parallel)
    state.on_threads(state.access.connections, work);
  else
    work(client);
  if (content.no_ranges) fetch_range(content, client, {0, part.size()}, false);
}

}  // namespace lapidary
