#include "io/hub_http.h"

#include <algorithm>
#include <cctype>
#include <curl/curl.h>

#include "base/fail.h"

namespace lapidary {

namespace {

constexpr int kMaxRedirects = 5;
constexpr size_t kMaxHeaderBytes = size_t{256} << 10;
constexpr size_t kMaxPageBytes = size_t{4} << 10;

using UrlParts = std::unique_ptr<CURLU, void (*)(CURLU*)>;

UrlParts parse_url(const std::string& url) {
  UrlParts parts(curl_url(), curl_url_cleanup);
  LAPIDARY_CHECK(parts, "no memory for an address");
  if (curl_url_set(parts.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) parts.reset();
  return parts;
}

std::string part_of(const UrlParts& parts, CURLUPart part) {
  char* text = nullptr;
  if (!parts || curl_url_get(parts.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

// Where `location` leads to, seen from `base`; empty if it is no address.
std::string joined_url(const std::string& base, const std::string& location) {
  const UrlParts parts = parse_url(base);
  if (!parts || curl_url_set(parts.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK)
    return "";
  char* text = nullptr;
  if (curl_url_get(parts.get(), CURLUPART_URL, &text, 0) != CURLUE_OK) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

// What one transfer's callbacks share.
struct Transfer {
  HttpAnswer answer;
  const HttpSink* sink = nullptr;
  const std::function<bool()>* stopped = nullptr;
  std::exception_ptr failure;  // of the sink: it must not pass through C
  size_t header_bytes = 0;
};

size_t on_header(char* data, size_t, size_t size, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  std::string_view line(data, size);
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) return 0;
  if (line.starts_with("HTTP/")) {  // a new answer: that of a proxy or "100 Continue" came before
    transfer.answer.headers.clear();
    transfer.answer.page.clear();
    const size_t blank = line.find(' ');
    transfer.answer.status = blank == line.npos ? 0 : std::atol(line.data() + blank);
    return size;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos) return size;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  line.remove_prefix(colon + 1);
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front())))
    line.remove_prefix(1);
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())))
    line.remove_suffix(1);
  transfer.answer.headers[name] = line;
  return size;
}

size_t on_body(char* data, size_t, size_t size, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  if (!transfer.answer.ok() || !*transfer.sink) {
    std::string& page = transfer.answer.page;
    page.append(data, std::min(size, kMaxPageBytes - page.size()));
    return size;
  }
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    return (*transfer.sink)(transfer.answer, bytes) ? size : 0;
  } catch (...) {
    transfer.failure = std::current_exception();
    return 0;
  }
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return (*static_cast<Transfer*>(context)->stopped)() ? 1 : 0;
}

// Answers that no patience changes.
bool is_refusal(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct HttpClient::Curl {
  CURL* handle = curl_easy_init();
  char error[CURL_ERROR_SIZE] = "";
  ~Curl() { curl_easy_cleanup(handle); }
};

std::string HttpAnswer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::string origin_of(const std::string& url) {
  const UrlParts parts = parse_url(url);
  if (!parts) return "";
  return part_of(parts, CURLUPART_SCHEME) + "://" + part_of(parts, CURLUPART_HOST) + ":" +
         part_of(parts, CURLUPART_PORT);
}

std::string url_encoded(std::string_view text, bool keep_slashes) {
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    encoded += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return encoded;
}

HttpClient::HttpClient(const HubAccess& access, const std::function<bool()>& stopped)
    : access_(access), stopped_(stopped) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  LAPIDARY_CHECK(started == CURLE_OK, "libcurl cannot start");
  curl_ = std::make_unique<Curl>();
  LAPIDARY_CHECK(curl_->handle, "no memory for a connection");
}

HttpClient::~HttpClient() = default;

struct HttpClient::Request {
  const std::string& url;
  bool head = false;
  std::string range = {};
  const std::string* json = nullptr;  // to be sent
};

HttpAnswer HttpClient::once(const Request& request, const HttpSink& sink) {
  const std::string& url = request.url;
  CURL* const curl = curl_->handle;
  Transfer transfer;
  transfer.sink = &sink;
  transfer.stopped = &stopped_;
  curl_easy_reset(curl);  // keeps the connection
  curl_->error[0] = 0;
  using Headers = std::unique_ptr<curl_slist, void (*)(curl_slist*)>;
  Headers headers(curl_slist_append(nullptr, "Accept-Encoding: identity"), curl_slist_free_all);
  if (!access_.token.empty() && origin_of(url) == origin_of(access_.endpoint)) {
    const std::string line = "Authorization: Bearer " + access_.token;
    curl_slist_append(headers.get(), line.c_str());
  }
  if (request.json != nullptr) {
    curl_slist_append(headers.get(), "Content-Type: application/json");
    curl_slist_append(headers.get(), "Expect:");
  }
  const bool secure = access_.endpoint.starts_with("https:");
  const auto set = [&](CURLoption option, auto value) {
    LAPIDARY_CHECK(curl_easy_setopt(curl, option, value) == CURLE_OK, "libcurl lacks an option");
  };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, secure ? "https" : "http,https");
  set(CURLOPT_NOBODY, request.head ? 1L : 0L);
  if (!request.range.empty()) set(CURLOPT_RANGE, request.range.c_str());
  if (request.json != nullptr) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json->size()));
    set(CURLOPT_POSTFIELDS, request.json->data());
  }
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_USERAGENT, "lapidary");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, long{access_.connect_seconds});
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, long{access_.stall_seconds});
  set(CURLOPT_BUFFERSIZE, 256L << 10);
  set(CURLOPT_ERRORBUFFER, curl_->error);
  set(CURLOPT_HEADERFUNCTION, &on_header);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, &on_body);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl);
  if (transfer.failure) std::rethrow_exception(transfer.failure);
  if (stopped_()) throw Error(ErrorKind::kInterrupted, "interrupted");

  HttpAnswer& answer = transfer.answer;
  answer.url = url;
  if (code != CURLE_OK) {
    answer.broken = curl_->error[0] ? curl_->error : curl_easy_strerror(code);
    answer.refused = is_refusal(code);
  }
  curl_off_t wait = 0;
  if (curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK) answer.retry_after = wait;
  if (answer.status >= 300 && answer.status < 400 && answer.headers.contains("location"))
    answer.redirect = joined_url(url, answer.header("location"));
  return std::move(answer);
}

HttpAnswer HttpClient::head(const std::string& url) {
  HttpAnswer answer = once({.url = url, .head = true}, {});
  for (int i = 0; i < kMaxRedirects; ++i) {
    if (answer.redirect.empty() || origin_of(answer.redirect) != origin_of(url)) return answer;
    HttpAnswer next = once({.url = answer.redirect, .head = true}, {});
    next.headers.merge(answer.headers);  // what only the first of them said holds still
    answer = std::move(next);
  }
  return answer;
}

HttpAnswer HttpClient::get(const std::string& url, const std::string& range, const HttpSink& sink) {
  HttpAnswer answer = once({.url = url, .range = range}, sink);
  for (int i = 0; i < kMaxRedirects && !answer.redirect.empty(); ++i)
    answer = once({.url = answer.redirect, .range = range}, sink);
  return answer;
}

HttpAnswer HttpClient::post(const std::string& url, const std::string& json, const HttpSink& sink) {
  return once({.url = url, .json = &json}, sink);
}

}  // namespace lapidary
