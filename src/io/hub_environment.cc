// What the environment says of the hub and of its cache: the variables of huggingface_hub.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "lapidary/hub.h"

#include "base/fail.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// "~/models" in the user's home. Other variables within a value are not expanded.
fs::path expanded(const std::string& path) {
  if (path == "~" || path.starts_with("~/")) return variable("HOME") + path.substr(1);
  return path;
}

fs::path hugging_face_home() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) return expanded(home);
  if (const std::string caches = variable("XDG_CACHE_HOME"); !caches.empty())
    return expanded(caches) / "huggingface";
  return expanded("~/.cache") / "huggingface";
}

bool is_set(const char* name) {
  std::string value = variable(name);
  std::transform(value.begin(), value.end(), value.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

int seconds(const char* name, int absent) {
  const std::string value = variable(name);
  if (value.empty()) return absent;
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1)
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: '{}' given, expected a number of seconds", name, value),
                "unset it, or give it another value");
  return number;
}

std::string stripped(std::string text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), blank));
  text.erase(std::find_if_not(text.rbegin(), text.rend(), blank).base(), text.end());
  return text;
}

std::string token() {
  if (is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return "";
  std::string source = "HF_TOKEN";
  std::string text = stripped(variable("HF_TOKEN"));
  if (text.empty()) {
    const std::string given = variable("HF_TOKEN_PATH");
    const fs::path path = given.empty() ? hugging_face_home() / "token" : expanded(given);
    std::ifstream file(path, std::ios::binary);
    text = stripped({std::istreambuf_iterator<char>(file), {}});
    source = path.string();
  }
  // Without saying what it is: messages are shown to others.
  const bool printable = std::all_of(text.begin(), text.end(), [](char c) { return c > 32; });
  if (!printable || text.size() > 4096)
    throw Error(ErrorKind::kUsage, source + ": this is not a token of the hub");
  return text;
}

std::string endpoint() {
  std::string value = variable("HF_ENDPOINT");
  if (value.empty()) return HubAccess().endpoint;
  while (value.ends_with('/')) value.pop_back();
  if (!value.starts_with("https://") && !value.starts_with("http://"))
    throw Error(ErrorKind::kUsage, fmt::format("HF_ENDPOINT: '{}' given, expected a URL", value),
                "unset it, or set it to something like https://huggingface.co");
  return value;
}

}  // namespace

fs::path hub_cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (const std::string value = variable(name); !value.empty()) return expanded(value);
  return hugging_face_home() / "hub";
}

HubAccess hub_access_from_environment() {
  HubAccess access;
  access.endpoint = endpoint();
  access.token = token();
  access.offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
  access.connect_seconds = seconds("HF_HUB_ETAG_TIMEOUT", access.connect_seconds);
  access.stall_seconds = seconds("HF_HUB_DOWNLOAD_TIMEOUT", access.stall_seconds);
  return access;
}

}  // namespace lapidary
