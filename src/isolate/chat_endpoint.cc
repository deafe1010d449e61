#include "isolate/chat_endpoint.h"

#include <algorithm>

#include "base/fail.h"
#include "base/json.h"
#include "io/hub_refusal.h"
#include "io/patience.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr size_t kMaxAnswerBytes = size_t{4} << 20;
// Shorter ones, as "none", are no secrets, and part of ordinary words.
constexpr size_t kLeastSecretBytes = 8;
constexpr std::string_view kChatPath = "/chat/completions";

std::string base_of(std::string url) {
  const bool http = url.starts_with("http://") || url.starts_with("https://");
  // A name and password, or a query, would be stored and shown.
  const bool secrets = url.find_first_of("@?#") != std::string::npos;
  if (!http || secrets || origin_of(url).empty())
    fail_usage("--endpoint: '{}' given, expected an address like http://localhost:8080/v1{}",
               printable(secrets ? origin_of(url) : url),
               secrets ? ", without name, password and query" : "");
  const auto drop_slashes = [&] {
    while (url.ends_with('/')) url.pop_back();
  };
  drop_slashes();
  if (url.ends_with(kChatPath)) {
    url.resize(url.size() - kChatPath.size());
    drop_slashes();
    return url;
  }
  return url.ends_with("/v1") ? url : url + "/v1";
}

void check_key(const EndpointOptions& options) {
  const bool good = options.key.size() <= 4096 &&
                    std::ranges::all_of(options.key, [](char c) { return c > 32 && c < 127; });
  if (!good) fail_usage("{}: this is not a key", options.key_name);  // without saying what it is
}

HubAccess access_to(const std::string& base, const EndpointOptions& options) {
  HubAccess access;
  access.endpoint = base;
  access.token = options.key;
  access.stall_seconds = options.timeout_seconds;
  access.attempts = options.attempts;
  access.first_wait_seconds = options.first_wait_seconds;
  return access;
}

// What the page of an error says, on one line.
std::string message_in(const std::string& page) {
  const Json json = Json::parse(page, nullptr, false);
  const Json* error = &json;
  if (json.is_object() && json.contains("error")) error = &json["error"];
  if (error->is_object() && error->contains("message")) error = &(*error)["message"];
  return printable(error->is_string() ? error->get_ref<const std::string&>() : page);
}

}  // namespace

ChatEndpoint::ChatEndpoint(const EndpointOptions& options, std::stop_token stop)
    : base_(base_of(options.url)),
      key_name_(options.key_name),
      access_(access_to(base_, options)),
      stopped_([stop = std::move(stop)] { return stop.stop_requested(); }),
      client_(access_, stopped_) {
  check_key(options);
}

std::string ChatEndpoint::without_key(std::string text) const {
  if (access_.token.size() < kLeastSecretBytes) return text;
  for (size_t at = 0; (at = text.find(access_.token, at)) != std::string::npos;)
    text.replace(at, access_.token.size(), "[key]");
  return text;
}

void ChatEndpoint::fail_answer(const HttpAnswer& answer, const std::string& url) const {
  const std::string kept = "what was judged is kept, and the same command goes on from there";
  if (answer.status == 0 || answer.ok())
    throw Error(ErrorKind::kResource,
                fmt::format("{}: {}", url,
                            answer.broken.empty() ? "the answer ended early" : answer.broken),
                reached_ ? kept
                         : "see whether the server runs, and whether it needs longer than "
                           "--timeout for an answer; proxies are those of http_proxy, https_proxy "
                           "and no_proxy");
  std::string page = message_in(without_key(answer.page));
  if (!page.empty()) page = ": " + page;
  if (is_transient(answer))
    throw Error(
        ErrorKind::kResource,
        fmt::format("{}: {} (HTTP {}){}", url,
                    answer.status == 429 ? "asked too often" : "out of order", answer.status, page),
        kept);
  if (answer.status == 401 || answer.status == 403)
    throw Error(ErrorKind::kInput,
                fmt::format("{}: {} (HTTP {}){}", url,
                            access_.token.empty() ? "wants a key"
                                                  : "does not accept the key in " + key_name_,
                            answer.status, page),
                fmt::format("put a key for this address into {}", key_name_));
  if (!answer.redirect.empty())
    throw Error(ErrorKind::kInput,
                fmt::format("{}: leads to {}, which is not followed (HTTP {})", url,
                            printable(without_key(answer.redirect)), answer.status),
                "give the address that you trust as --endpoint");
  throw Error(
      ErrorKind::kInput, fmt::format("{}: refused (HTTP {}){}", url, answer.status, page),
      answer.status == 404
          ? "see whether --model is one of its models, and whether the API is at this address"
          : "");
}

std::string ChatEndpoint::request(const std::string& path, const std::string* json) {
  const std::string url = base_ + path;
  Patience patience(access_, stopped_);
  for (;;) {
    std::string body;
    const HttpSink sink = [&](const HttpAnswer&, std::span<const std::byte> piece) {
      if (body.size() + piece.size() > kMaxAnswerBytes)
        fail("{}: the answer has more than {} bytes", url, kMaxAnswerBytes);
      body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      return true;
    };
    const HttpAnswer answer =
        json == nullptr ? client_.get(url, "", sink) : client_.post(url, *json, sink);
    reached_ = reached_ || answer.status != 0;
    if (answer.ok() && answer.broken.empty()) return without_key(std::move(body));
    if (!is_transient(answer) || !reached_ || !patience.again(answer, url))
      fail_answer(answer, url);
  }
}

std::string ChatEndpoint::only_model() {
  const std::string where = base_ + "/models";
  const Json json = parse_json(request("/models", nullptr), where);
  const JsonObject list(json, where);
  std::vector<std::string> names;
  if (list.raw("data").is_array())
    for (const Json& model : list.raw("data"))
      names.push_back(JsonObject(model, where).string("id"));
  if (names.size() == 1) return names[0];
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  throw Error(ErrorKind::kUsage,
              fmt::format("--model: not given, and {} has {}", where, names.size()),
              all.empty() ? "" : "give one of " + printable(all));
}

std::string ChatEndpoint::ask(const std::string& model, std::span<const ChatMessage> messages) {
  OrderedJson body = {{"model", model}, {"temperature", 0}, {"stream", false}};
  for (const ChatMessage& message : messages)
    body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  const std::string text = body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  const std::string where = base_ + std::string(kChatPath);
  const std::string page = request(std::string(kChatPath), &text);
  const Json json = parse_json(page, where);
  const JsonObject answer(json, where);
  // Some servers say with HTTP 200 what is wrong.
  if (answer.has("error") && !answer.raw("error").is_null())
    throw Error(ErrorKind::kInput, where + ": refused: " + message_in(page));
  const Json& choices = answer.raw("choices");
  if (!choices.is_array() || choices.empty())
    answer.fail_field("choices", "expected an array, found " + shown_json(choices));
  return JsonObject(choices[0], where + ": choices[0]").object("message").string("content", "");
}

}  // namespace lapidary
