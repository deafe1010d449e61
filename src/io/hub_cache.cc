#include "io/hub_cache.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/file.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "base/fail.h"
#include "io/hub_name.h"
#include "io/output_file.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "models--";

std::string folder_name(const std::string& repo) {
  const size_t slash = repo.find('/');
  if (slash == repo.npos) return fmt::format("{}{}", kPrefix, repo);
  return fmt::format("{}{}--{}", kPrefix, repo.substr(0, slash), repo.substr(slash + 1));
}

// "models--google--gemma-3-1b-it" is "google/gemma-3-1b-it".
std::optional<std::string> repo_of(const std::string& folder) {
  if (!folder.starts_with(kPrefix)) return {};
  std::string repo = folder.substr(kPrefix.size());
  if (const size_t dashes = repo.find("--"); dashes != repo.npos)
    repo = fmt::format("{}/{}", repo.substr(0, dashes), repo.substr(dashes + 2));
  if (!is_repo_name(repo)) return {};
  return repo;
}

// Every entry below a folder that is no folder itself; links are not followed.
std::vector<fs::path> entries_below(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error))
    if (it->is_symlink() || !it->is_directory()) found.push_back(it->path());
  std::sort(found.begin(), found.end());
  return found;
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A folder below `root` that was made component by component: a link on the way, which would lead
// out of the cache, is an error.
void make_folders_below(const fs::path& root, const fs::path& relative) {
  fs::path folder = root;
  make_folders(folder);
  for (const fs::path& part : relative) {
    if (part.empty()) continue;
    folder /= part;
    if (::mkdir(folder.c_str(), 0777) == 0) continue;
    const int code = errno;
    std::error_code error;
    if (code != EEXIST)
      fail_resource("{}: cannot create: {}", folder.string(), std::strerror(code));
    if (!fs::is_directory(fs::symlink_status(folder, error)))
      fail("{}: is in the way: expected a folder", folder.string());
  }
}

}  // namespace

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_resource("{}: cannot create: {}", folder.string(), error.message());
}

std::optional<int64_t> size_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  return status.st_size;
}

ModelCache::ModelCache(fs::path cache, std::string repo)
    : cache_(std::move(cache)), repo_(std::move(repo)), folder_(cache_ / folder_name(repo_)) {
  LAPIDARY_CHECK(is_repo_name(repo_), "a folder for what is no name of a model");
}

fs::path ModelCache::part(const std::string& hash) const {
  return blobs() / (hash + ".lapidary.incomplete");
}

fs::path ModelCache::snapshot(const std::string& commit) const {
  LAPIDARY_CHECK(is_commit(commit), "a snapshot of what is no commit");
  return folder_ / "snapshots" / commit;
}

fs::path ModelCache::locks() const {
  return cache_ / ".locks" / folder_name(repo_);
}

fs::path ModelCache::lock(const std::string& hash) const {
  return locks() / (hash + ".lock");
}

std::optional<std::string> ModelCache::commit_of(const std::string& revision) const {
  LAPIDARY_CHECK(is_revision(revision), "asked for what is no revision");
  const std::string commit = first_line(folder_ / "refs" / revision);
  if (is_commit(commit)) return commit;
  if (is_commit(revision)) return revision;
  return {};
}

std::map<std::string, std::string> ModelCache::refs() const {
  std::map<std::string, std::string> refs;
  const fs::path folder = folder_ / "refs";
  for (const fs::path& path : entries_below(folder))
    if (const std::string commit = first_line(path); is_commit(commit))
      refs[path.lexically_relative(folder).string()] = commit;
  return refs;
}

std::vector<std::string> ModelCache::commits() const {
  std::vector<std::string> commits;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_ / "snapshots", error))
    if (const std::string name = entry.path().filename(); is_commit(name)) commits.push_back(name);
  std::sort(commits.begin(), commits.end());
  return commits;
}

std::map<std::string, std::string> ModelCache::files_of(const std::string& commit) const {
  std::map<std::string, std::string> files;
  const fs::path folder = snapshot(commit);
  for (const fs::path& path : entries_below(folder)) {
    std::error_code error;
    const fs::path target = fs::read_symlink(path, error);
    const fs::path absolute = (path.parent_path() / target).lexically_normal();
    const bool blob = !error && absolute.parent_path() == blobs().lexically_normal();
    files[path.lexically_relative(folder).string()] = blob ? target.filename().string() : "";
  }
  return files;
}

void ModelCache::link(const std::string& commit, const std::string& file,
                      const std::string& hash) const {
  LAPIDARY_CHECK(is_repo_file(file) && is_blob_name(hash), "a link to or from an unchecked name");
  const fs::path relative = fs::path(file).parent_path();
  make_folders_below(snapshot(commit), relative);
  const fs::path path = snapshot(commit) / file;
  std::error_code error;
  if (fs::is_directory(fs::symlink_status(path, error)))
    fail("{}: is in the way: expected a file", path.string());
  const fs::path target = blob(hash).lexically_relative(path.parent_path());
  static std::atomic<int> count{0};
  const fs::path temporary =
      path.parent_path() / fmt::format(".link.tmp-{}-{}", ::getpid(), count++);
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) == 0 &&
      ::rename(temporary.c_str(), path.c_str()) == 0)
    return;
  const int code = errno;
  ::unlink(temporary.c_str());
  fail_resource("{}: cannot create: {}", path.string(), std::strerror(code));
}

void ModelCache::write_ref(const std::string& revision, const std::string& commit) const {
  LAPIDARY_CHECK(is_revision(revision) && is_commit(commit), "a ref of unchecked names");
  const fs::path path = folder_ / "refs" / revision;
  if (first_line(path) == commit) return;  // the cache may be read-only
  make_folders_below(folder_ / "refs", fs::path(revision).parent_path());
  OutputFile file(path);
  file.create(std::ssize(commit));
  file.put(std::as_bytes(std::span(commit)), 0);
  file.finish();
}

std::vector<ModelCache> models_in(const fs::path& cache) {
  std::vector<ModelCache> models;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache, error))
    if (const auto repo = repo_of(entry.path().filename()); repo && entry.is_directory())
      models.emplace_back(cache, *repo);
  if (error && error != std::errc::no_such_file_or_directory)
    fail_resource("{}: cannot read: {}", cache.string(), error.message());
  std::sort(models.begin(), models.end(),
            [](const ModelCache& a, const ModelCache& b) { return a.repo() < b.repo(); });
  return models;
}

FileLock::FileLock(const fs::path& path, const std::function<void()>& wait) {
  make_folders(path.parent_path());
  for (;;) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (fd_ < 0) fail_resource("{}: cannot create: {}", path.string(), std::strerror(errno));
    const bool locked = ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != EWOULDBLOCK && errno != EINTR) return;  // no locks here
    // Whoever held it may have removed the file: a lock on a file without a name is none.
    struct stat status {};
    if (locked && ::fstat(fd_, &status) == 0 && status.st_nlink > 0) return;
    ::close(fd_);
    fd_ = -1;
    if (locked) continue;
    wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace lapidary
