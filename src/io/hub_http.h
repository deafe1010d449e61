// Requests to the hub and to the hosts that it redirects to, over libcurl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lapidary/hub.h"

namespace lapidary {

struct HttpAnswer {
  long status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string url;                             // that gave it
  std::string redirect;                        // where it leads to, absolute; empty: nowhere
  int64_t retry_after = 0;                     // seconds that the server asks to wait; 0: none
  // What broke off the transfer, in words; empty when all that was announced has come.
  std::string broken;
  bool refused = false;  // the break is no accident: another attempt would meet it again
  std::string page;      // of an answer that is not 2xx: its first 4 KiB

  std::string header(const std::string& name) const;
  bool ok() const { return status >= 200 && status < 300; }
};

// Takes a piece of the body of a 2xx answer, whose status and headers are there already. Returns
// false to end the transfer, which is then broken without a reason.
using HttpSink = std::function<bool(const HttpAnswer& answer, std::span<const std::byte> piece)>;

// One connection, kept open between requests. Used by one thread at a time.
class HttpClient {
 public:
  // `stopped` is asked about once a second, or after each piece; `access` and it must outlive this.
  HttpClient(const HubAccess& access, const std::function<bool()>& stopped);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Follows redirects on the host it starts with; one that leads elsewhere is the answer.
  HttpAnswer head(const std::string& url);
  // Follows all redirects. `range` is empty or like "0-499".
  HttpAnswer get(const std::string& url, const std::string& range, const HttpSink& sink);
  // Sends JSON. Follows no redirect.
  HttpAnswer post(const std::string& url, const std::string& json, const HttpSink& sink);

 private:
  struct Curl;
  struct Request;
  HttpAnswer once(const Request& request, const HttpSink& sink);

  const HubAccess& access_;
  const std::function<bool()>& stopped_;
  std::unique_ptr<Curl> curl_;
};

// "https://host:443": the token goes to the endpoint's origin and to no other.
std::string origin_of(const std::string& url);
// `text` as one part of a URL's path, or with its slashes as several.
std::string url_encoded(std::string_view text, bool keep_slashes);

}  // namespace lapidary
