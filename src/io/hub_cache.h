// Where the hub's cache keeps things, as huggingface_hub does:
//
//   models--ORG--NAME/blobs/HASH               contents, named by their hash
//                    /refs/main                the commit of a branch or tag
//                    /snapshots/COMMIT/FILE    a relative link to a blob
//                    /.no_exist/COMMIT/FILE    what huggingface_hub found not to be there
//                    /trees/COMMIT.json        its listing of a commit
//   .locks/models--ORG--NAME/HASH.lock         held (flock) while the blob is made
//   blobs/XX/XETHASH, XETHASH.refs             contents that models share, and who uses them:
//                                              a blob of a model may be a link to one of these
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

class ModelCache {
 public:
  ModelCache(std::filesystem::path cache, std::string repo);

  const std::string& repo() const { return repo_; }
  const std::filesystem::path& cache() const { return cache_; }
  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path blobs() const { return folder_ / "blobs"; }
  std::filesystem::path blob(const std::string& hash) const { return blobs() / hash; }
  // Of a download. Not HASH.incomplete, which releases of huggingface_hub before 1.0 take for the
  // front of the file, however its bytes came.
  std::filesystem::path part(const std::string& hash) const;
  std::filesystem::path snapshot(const std::string& commit) const;
  std::filesystem::path lock(const std::string& hash) const;
  std::filesystem::path locks() const;

  // The commit of a branch or tag, or `revision` itself if it is a commit.
  std::optional<std::string> commit_of(const std::string& revision) const;
  std::map<std::string, std::string> refs() const;  // name to commit
  std::vector<std::string> commits() const;         // with a snapshot, sorted

  // Names within a snapshot, and the blob that each leads to, or an empty name for a file that is
  // not a link into blobs/.
  std::map<std::string, std::string> files_of(const std::string& commit) const;

  // Throw Error{kResource}. A link or ref that is there already is replaced in one step.
  void link(const std::string& commit, const std::string& file, const std::string& hash) const;
  void write_ref(const std::string& revision, const std::string& commit) const;

 private:
  std::filesystem::path cache_;
  std::string repo_;
  std::filesystem::path folder_;
};

// The models in a cache, sorted by name. A cache that is not there has none.
std::vector<ModelCache> models_in(const std::filesystem::path& cache);

// Makes a folder and those above it. Throws Error{kResource}.
void make_folders(const std::filesystem::path& folder);
// The size of a regular file, or of the one that a link leads to.
std::optional<int64_t> size_of(const std::filesystem::path& path);

// A lock between processes, which filelock of Python knows too. Best effort: on a file system
// without locks it is not held, which costs only that a file may be downloaded twice.
class FileLock {
 public:
  // Waits, calling `wait` (which may throw) every tenth of a second.
  FileLock(const std::filesystem::path& path, const std::function<void()>& wait);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace lapidary
