#include "io/hub_shared.h"

#include <fstream>
#include <string>
#include <unistd.h>

#include "io/hub_cache.h"
#include "io/hub_name.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

bool is_plain_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(fs::symlink_status(path, error));
}

fs::path with_ending(const fs::path& content, const char* ending) {
  return content.parent_path() / (content.filename().string() + ending);
}

}  // namespace

std::optional<fs::path> shared_content(const fs::path& cache, const fs::path& blob) {
  std::error_code error;
  const fs::path target = fs::read_symlink(blob, error);
  if (error) return {};
  const fs::path content = (blob.parent_path() / target).lexically_normal();
  const std::string hash = content.filename();
  const fs::path expected = (cache / "blobs" / hash.substr(0, 2) / hash).lexically_normal();
  if (!is_blob_name(hash) || content != expected || !is_plain_file(content)) return {};
  return content;
}

std::optional<std::set<fs::path>> shared_users(const fs::path& cache, const fs::path& content) {
  const fs::path manifest = with_ending(content, ".refs");
  std::ifstream file(manifest);
  if (!is_plain_file(manifest) || !file) return {};
  std::set<fs::path> users;
  for (std::string line; std::getline(file, line);)
    if (const fs::path blob = cache / line; shared_content(cache, blob) == content)
      users.insert(blob.lexically_normal());
  return users;
}

int64_t sweep_shared(const fs::path& cache, const fs::path& content) {
  const FileLock lock(with_ending(content, ".lock"), [] {});
  const auto users = shared_users(cache, content);
  const auto size = size_of(content);
  if (!users || !users->empty() || !size || ::unlink(content.c_str()) != 0) return 0;
  ::unlink(with_ending(content, ".refs").c_str());
  return *size;
}

}  // namespace lapidary
