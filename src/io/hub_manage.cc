// What is in the cache: finding, listing, removing and checking it.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <unistd.h>

#include "lapidary/hub.h"
#include "lapidary/log.h"

#include "base/fail.h"
#include "io/hash.h"
#include "io/hub_cache.h"
#include "io/hub_name.h"
#include "io/hub_shared.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

constexpr size_t kShortCommit = 7;

[[noreturn]] void fail_not_cached(const std::string& what, const fs::path& cache) {
  throw Error(ErrorKind::kInput, fmt::format("{}: not in the cache {}", what, cache.string()),
              "lapidary list shows what is there");
}

// The commit of a branch, tag, commit or the front of a commit, if its snapshot is there.
std::optional<std::string> cached_commit(const ModelCache& model, const std::string& revision) {
  const std::vector<std::string> commits = model.commits();
  const auto is_there = [&](const std::string& commit) {
    return std::binary_search(commits.begin(), commits.end(), commit);
  };
  if (const auto commit = model.commit_of(revision); commit && is_there(*commit)) return commit;
  const auto matches = [&](const std::string& commit) { return commit.starts_with(revision); };
  if (revision.size() < kShortCommit || std::count_if(commits.begin(), commits.end(), matches) != 1)
    return {};
  return *std::find_if(commits.begin(), commits.end(), matches);
}

std::set<std::string> blobs_of(const ModelCache& model, const std::vector<std::string>& commits) {
  std::set<std::string> blobs;
  for (const std::string& commit : commits)
    for (const auto& [file, blob] : model.files_of(commit))
      if (!blob.empty()) blobs.insert(blob);
  return blobs;
}

// Blobs of these commits that no other commit of the model uses.
std::set<std::string> own_blobs(const ModelCache& model, const std::vector<std::string>& removed) {
  std::vector<std::string> staying;
  for (const std::string& commit : model.commits())
    if (std::find(removed.begin(), removed.end(), commit) == removed.end())
      staying.push_back(commit);
  const std::set<std::string> used = blobs_of(model, staying), all = blobs_of(model, removed);
  std::set<std::string> own;
  std::set_difference(all.begin(), all.end(), used.begin(), used.end(),
                      std::inserter(own, own.end()));
  return own;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

// The bytes that go if these blobs do; shared content goes with the last of its users.
int64_t bytes_freed_by(const ModelCache& model, const std::set<fs::path>& blobs) {
  int64_t bytes = 0;
  std::set<fs::path> counted;
  for (const fs::path& blob : blobs) {
    if (const auto content = shared_content(model.cache(), blob)) {
      const auto users = shared_users(model.cache(), *content);
      const bool last =
          users && std::includes(blobs.begin(), blobs.end(), users->begin(), users->end());
      if (!last || !counted.insert(*content).second) continue;
    }
    bytes += size_of(blob).value_or(0);
  }
  return bytes;
}

void remove_path(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail_resource("{}: cannot remove: {}", path.string(), error.message());
}

// Removes a blob, and what it shared with nobody else. Returns the bytes that were freed.
int64_t remove_blob(const ModelCache& model, const fs::path& blob) {
  const auto content = shared_content(model.cache(), blob);
  const int64_t bytes = content ? 0 : size_of(blob).value_or(0);
  remove_path(blob);
  return content ? sweep_shared(model.cache(), *content) : bytes;
}

}  // namespace

std::optional<fs::path> find_snapshot(const fs::path& cache, const HubName& name) {
  const ModelCache model(cache, name.repo);
  const auto commit = cached_commit(model, name.revision_or_main());
  if (!commit) return {};
  return model.snapshot(*commit);
}

std::vector<CachedModel> cached_models(const fs::path& cache) {
  std::vector<CachedModel> found;
  for (const ModelCache& model : models_in(cache)) {
    CachedModel entry{model.repo(), model.folder(), {}, 0, 0};
    const auto refs = model.refs();
    for (const std::string& commit : model.commits()) {
      CachedRevision revision{commit, {}, 0, 0};
      for (const auto& [name, target] : refs)
        if (target == commit) revision.refs.push_back(name);
      for (const auto& [file, blob] : model.files_of(commit)) {
        const int64_t bytes = size_of(model.snapshot(commit) / file).value_or(0);
        ++revision.files;
        revision.bytes += bytes;
        if (blob.empty()) entry.bytes += bytes;
      }
      entry.revisions.push_back(std::move(revision));
    }
    for (const fs::path& blob : entries_of(model.blobs()))
      (blob.extension() == ".incomplete" ? entry.unfinished_bytes : entry.bytes) +=
          size_of(blob).value_or(0);
    found.push_back(std::move(entry));
  }
  return found;
}

Removal plan_removal(const fs::path& cache, const HubName& name) {
  const ModelCache model(cache, name.repo);
  std::error_code error;
  if (!fs::is_directory(model.folder(), error)) fail_not_cached(name.repo, cache);
  Removal removal;
  removal.repo = name.repo;
  const std::vector<std::string> commits = model.commits();
  if (name.revision.empty()) {
    removal.commits = commits;
  } else if (const auto commit = cached_commit(model, name.revision)) {
    removal.commits = {*commit};
  } else {
    fail_not_cached(name.text(), cache);
  }
  removal.whole_model = removal.commits.size() == commits.size();
  for (const auto& [ref, commit] : model.refs())
    if (std::find(removal.commits.begin(), removal.commits.end(), commit) != removal.commits.end())
      removal.refs.push_back(ref);
  std::set<fs::path> blobs;
  if (removal.whole_model) {
    for (const fs::path& blob : entries_of(model.blobs())) blobs.insert(blob.lexically_normal());
  } else {
    for (const std::string& blob : own_blobs(model, removal.commits))
      blobs.insert(model.blob(blob).lexically_normal());
  }
  removal.bytes = bytes_freed_by(model, blobs);
  return removal;
}

int64_t remove_cached(const fs::path& cache, const Removal& removal) {
  const ModelCache model(cache, removal.repo);
  int64_t freed = 0;
  const std::set<std::string> blobs = own_blobs(model, removal.commits);
  // From the names down to the contents, so that no name ever leads to contents that are gone.
  for (const std::string& ref : removal.refs) remove_path(model.folder() / "refs" / ref);
  for (const std::string& commit : removal.commits) {
    remove_path(model.snapshot(commit));
    remove_path(model.folder() / ".no_exist" / commit);
    remove_path(model.folder() / "trees" / (commit + ".json"));
  }
  if (removal.whole_model) {
    for (const fs::path& blob : entries_of(model.blobs())) freed += remove_blob(model, blob);
    remove_path(model.folder());
    remove_path(model.locks());
    return freed;
  }
  for (const std::string& blob : blobs) {
    const FileLock lock(model.lock(blob), [] {});
    if (!blobs_of(model, model.commits()).contains(blob))  // a pull may have linked it meanwhile
      freed += remove_blob(model, model.blob(blob));
  }
  return freed;
}

namespace {

struct BlobToCheck {
  fs::path path;
  std::vector<std::string> files;  // that lead to it
};

// The blobs of one model whose names say what their hash must be; what cannot be checked at all is
// a fault already, or a warning.
void gather_blobs(const ModelCache& model, std::vector<BlobToCheck>& blobs,
                  std::vector<CacheFault>& faults) {
  std::map<std::string, std::vector<std::string>> used;
  for (const std::string& commit : model.commits())
    for (const auto& [file, blob] : model.files_of(commit)) {
      const std::string label =
          fmt::format("{}@{}: {}", model.repo(), commit.substr(0, kShortCommit), file);
      if (blob.empty())
        log(LogLevel::kWarning, label + ": is not a link to a blob, its hash is not known");
      else if (!size_of(model.blob(blob)))
        faults.push_back({model.snapshot(commit) / file, {label}, "its blob is missing"});
      else
        used[blob].push_back(label);
    }
  for (const fs::path& path : entries_of(model.blobs())) {
    if (path.extension() == ".incomplete" || !size_of(path)) continue;
    if (is_blob_name(path.filename().string()))
      blobs.push_back({path, used[path.filename()]});
    else
      log(LogLevel::kWarning, path.string() + ": its name is no hash, it is not checked");
  }
}

}  // namespace

CacheCheck verify_cache(const fs::path& cache, const std::optional<HubName>& only,
                        const Watch& watch) {
  CacheCheck check;
  std::vector<BlobToCheck> blobs;
  bool found = false;
  for (const ModelCache& model : models_in(cache)) {
    if (only && model.repo() != only->repo) continue;
    found = true;
    gather_blobs(model, blobs, check.faults);
  }
  if (only && !found) fail_not_cached(only->repo, cache);
  int64_t total = 0;
  for (const BlobToCheck& blob : blobs) total += size_of(blob.path).value_or(0);
  for (const BlobToCheck& blob : blobs) {
    const std::string expected = blob.path.filename();
    const int64_t size = size_of(blob.path).value_or(0);
    const std::string hash = blob_hash(blob.path, size, expected, [&](int64_t bytes) {
      watch.throw_if_stopped();
      check.bytes += bytes;
      watch.report(check.bytes, total);
    });
    ++check.blobs;
    if (hash != expected)
      check.faults.push_back(
          {blob.path, blob.files, fmt::format("{} bytes with the hash {}", size, hash)});
  }
  return check;
}

}  // namespace lapidary
