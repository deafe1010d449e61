#include "io/hub_refusal.h"

#include "base/fail.h"
#include "io/printable.h"

namespace lapidary {

namespace {

struct Refusal {
  std::string problem;
  std::string hint;
};

// Most often a matter of rights: the hub tells who may not see a model that there is none.
Refusal explain(const HttpAnswer& answer, const HubAccess& access, const HubName& name) {
  const std::string code = answer.header("x-error-code");
  const std::string words = printable(answer.header("x-error-message"));
  const std::string page = access.endpoint + "/" + name.repo;
  const std::string tokens = access.endpoint + "/settings/tokens";
  const std::string set_token = "set HF_TOKEN to a token from " + tokens;
  const bool has_token = !access.token.empty();
  if (code == "GatedRepo") {
    if (!has_token)
      return {"gated: its licence has to be accepted first, and no token was given",
              fmt::format("accept the licence at {}, then {}", page, set_token)};
    return {"gated, and the account of this token has no access",
            fmt::format("accept the licence at {} with that account, and give the token leave to "
                        "read gated models at {}",
                        page, tokens)};
  }
  if (code == "RevisionNotFound")
    return {fmt::format("has no revision '{}'", name.revision_or_main()),
            fmt::format("{}/tree/main lists branches and tags", page)};
  if (code == "EntryNotFound") return {"no such file in this revision", ""};
  if (answer.status == 401 && has_token && code != "RepoNotFound")
    return {"the hub does not accept the token",
            fmt::format("make a new one at {} and set HF_TOKEN to it, or unset HF_TOKEN for a "
                        "public model",
                        tokens)};
  if (answer.status == 401 || code == "RepoNotFound")
    return {has_token ? "no such model, or a private one that this token may not read"
                      : "no such model, or a private or gated one",
            has_token ? "check the name"
                      : fmt::format("check the name; for a private model {}", set_token)};
  if (answer.status == 403)
    return {words.empty() ? "access denied" : "access denied: " + words,
            has_token ? "see what the token may do at " + tokens : set_token};
  if (answer.status == 404) return {"no such model at " + access.endpoint, "check the name"};
  return {words.empty() ? "an answer that was not expected" : words, ""};
}

std::string host_of(const std::string& url) {
  const std::string origin = origin_of(url);
  return origin.empty() ? "the hub" : origin;
}

}  // namespace

bool is_transient(const HttpAnswer& answer) {
  if (answer.status == 408 || answer.status == 429 || answer.status == 500 ||
      answer.status == 502 || answer.status == 503 || answer.status == 504)
    return true;
  return (answer.status == 0 || answer.ok()) && !answer.refused;
}

void fail_answer(const HttpAnswer& answer, const HubAccess& access, const HubName& name,
                 const std::string& what) {
  const std::string subject = name.text() + (what.empty() ? "" : ": " + printable(what));
  if (answer.status == 0 || answer.ok()) {
    const bool certificate = answer.broken.find("certificate") != std::string::npos;
    throw Error(ErrorKind::kResource,
                fmt::format("{}: {}: {}", subject, host_of(answer.url),
                            answer.broken.empty() ? "the answer ended early" : answer.broken),
                certificate
                    ? "install the package ca-certificates, or see why the certificate is "
                      "not one that it knows"
                    : "check the connection, and the proxy in https_proxy; what has arrived "
                      "is kept, and the next pull goes on from there");
  }
  if (is_transient(answer))
    throw Error(
        ErrorKind::kResource,
        fmt::format("{}: {} is {} (HTTP {})", subject, host_of(answer.url),
                    answer.status == 429 ? "asked too often" : "out of order", answer.status),
        fmt::format("try again {}; what has arrived is kept, and the next pull goes on from "
                    "there",
                    answer.retry_after > 0 ? fmt::format("in {} s", answer.retry_after) : "later"));
  const Refusal refusal = explain(answer, access, name);
  throw Error(ErrorKind::kInput,
              fmt::format("{}: {} (HTTP {})", subject, refusal.problem, answer.status),
              refusal.hint);
}

}  // namespace lapidary
