#include "io/hub_name.h"

#include <algorithm>

#include "lapidary/hub.h"

namespace lapidary {

namespace {

// Calls `accept` for each part between slashes, and stops at the first that it refuses.
template <class Accept>
bool all_parts(std::string_view text, Accept&& accept) {
  for (size_t begin = 0;;) {
    const size_t end = std::min(text.find('/', begin), text.size());
    if (!accept(text.substr(begin, end - begin))) return false;
    if (end == text.size()) return true;
    begin = end + 1;
  }
}

bool is_path_part(std::string_view part) {
  const bool plain = std::none_of(part.begin(), part.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\';
  });
  return plain && !part.empty() && part != "." && part != ".." && part.size() <= 255;
}

bool is_repo_part(std::string_view part) {
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  const bool letters = std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
  return letters && !part.empty() && part.size() <= 96 && !edge(part.front()) && !edge(part.back());
}

bool is_hex(std::string_view text, size_t length) {
  return text.size() == length && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

bool is_repo_name(std::string_view text) {
  return std::count(text.begin(), text.end(), '/') <= 1 && all_parts(text, is_repo_part) &&
         text.find("--") == text.npos && text.find("..") == text.npos;
}

bool is_revision(std::string_view text) {
  return text.size() <= 1024 && text.find('@') == text.npos && all_parts(text, is_path_part);
}

bool is_repo_file(std::string_view text) {
  return text.size() <= 2048 && all_parts(text, is_path_part);
}

bool is_commit(std::string_view text) {
  return is_hex(text, 40);
}

bool is_blob_name(std::string_view text) {
  return is_hex(text, 40) || is_hex(text, 64);
}

const std::string& HubName::revision_or_main() const {
  static const std::string main = "main";
  return revision.empty() ? main : revision;
}

std::string HubName::text() const {
  return revision.empty() ? repo : repo + "@" + revision;
}

std::optional<HubName> parse_hub_name(std::string_view text) {
  const size_t at = text.find('@');
  const std::string_view repo = text.substr(0, at);
  if (!is_repo_name(repo)) return {};
  if (at == text.npos) return HubName{std::string(repo), ""};
  const std::string_view revision = text.substr(at + 1);
  if (!is_revision(revision)) return {};
  return HubName{std::string(repo), std::string(revision)};
}

}  // namespace lapidary
