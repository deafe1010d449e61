// A model behind an HTTP API of OpenAI's form.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>

#include "io/hub_http.h"

namespace lapidary {

struct EndpointOptions {
  std::string url;            // "http://localhost:8080", ".../v1" or ".../chat/completions"
  std::string key = {};       // sent to the address's own host alone; empty: none
  std::string key_name = {};  // of the variable that it comes from, for messages
  int timeout_seconds = 120;  // to wait for the next byte
  int attempts = 5;           // in a row, when the server is busy or a transfer breaks off
  double first_wait_seconds = 1;
};

struct ChatMessage {
  std::string role, content;
};

// Requests one after another. A server that was never reached is not tried again. What the server
// says is given on without the key, should it repeat it.
class ChatEndpoint {
 public:
  // Throws Error{kUsage} for an address or a key that cannot be.
  ChatEndpoint(const EndpointOptions& options, std::stop_token stop);

  // The name of the one model that it has. Throws Error{kUsage} naming them when there are others.
  std::string only_model();
  // The answer, at temperature 0; empty where there is no text in it. Throws Error: kInput when the
  // server refuses or is none of this kind, kResource when it cannot be reached, kInterrupted.
  std::string ask(const std::string& model, std::span<const ChatMessage> messages);

 private:
  // The body of a 2xx answer. `json` is sent, or nothing asked for with GET.
  std::string request(const std::string& path, const std::string* json);
  [[noreturn]] void fail_answer(const HttpAnswer& answer, const std::string& url) const;
  std::string without_key(std::string text) const;

  std::string base_;  // before "/models"
  std::string key_name_;
  HubAccess access_;
  std::function<bool()> stopped_;
  HttpClient client_;
  bool reached_ = false;
};

}  // namespace lapidary
