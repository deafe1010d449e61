#include <cerrno>
#include <cstring>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lapidary/hub.h"
#include "lapidary/log.h"

#include "base/fail.h"
#include "io/hash.h"
#include "io/hub_cache.h"
#include "io/hub_listing.h"
#include "io/hub_name.h"
#include "io/hub_transfer.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

class Pull {
 public:
  Pull(const HubName& name, const fs::path& cache, const HubAccess& access, const Watch& watch)
      : model_(cache, name.repo),
        name_(name),
        state_(access, name, watch),
        client_(access, state_.stopped) {}

  Pulled run(const FileSelection& selection) {
    const HubListing listing = fetch_listing(state_, client_);
    commit_ = listing.commit;
    const std::vector<HubFile> files = select_files(listing.files, selection);
    if (files.empty())
      throw Error(
          ErrorKind::kInput,
          fmt::format("{}: none of its {} files is wanted", name_.text(), listing.files.size()),
          "--include names others, as in --include '*.gguf'");
    for (const HubFile& file : files) state_.expect(std::max<int64_t>(file.size, 0));
    check_room(files);
    fetch_all(files);
    // Last of all: a branch never leads to a snapshot that is not whole.
    if (name_.revision_or_main() != commit_) model_.write_ref(name_.revision_or_main(), commit_);
    Pulled pulled{model_.snapshot(commit_), commit_, std::ssize(files), 0, state_.downloaded()};
    for (const HubFile& file : files)
      pulled.bytes += size_of(pulled.snapshot / file.name).value_or(0);
    return pulled;
  }

 private:
  // Files that one request can bring go over several connections at once, each file over one; then
  // the others one after another, each over all connections.
  void fetch_all(const std::vector<HubFile>& files) {
    const auto is_small = [&](const HubFile& file) {
      return file.size <= state_.access.segment_bytes;
    };
    std::atomic<size_t> next = 0;
    state_.on_threads(state_.access.connections, [&](HttpClient& client) {
      for (size_t i; (i = next++) < files.size();)
        if (is_small(files[i])) fetch(files[i], client, false);
    });
    for (const HubFile& file : files)
      if (!is_small(file)) fetch(file, client_, true);
  }

  void fetch(const HubFile& file, HttpClient& client, bool in_parallel) {
    state_.throw_if_stopped();
    const fs::path path = model_.snapshot(commit_) / file.name;
    if (const auto size = size_of(path); size && (file.size < 0 || *size == file.size)) {
      state_.count(*size);
      log(LogLevel::kDebug, file.name + ": is there already");
      return;
    }
    Source source{file.blob, file.size, ""};
    if (source.blob.empty() || source.size < 0)
      source = fetch_source(state_, client, commit_, file);
    const FileLock lock(model_.lock(source.blob), [&] { state_.throw_if_stopped(); });
    if (size_of(model_.blob(source.blob)) == source.size)
      state_.count(source.size);  // of another revision, or brought by another program meanwhile
    else
      download(file, source, client, in_parallel);
    model_.link(commit_, file.name, source.blob);
  }

  void download(const HubFile& file, Source source, HttpClient& client, bool in_parallel) {
    if (source.url.empty()) source = fetch_source(state_, client, commit_, file);
    make_folders(model_.blobs());
    PartFile part(model_.part(source.blob), source.size, state_.access.segment_bytes);
    int64_t old_bytes = part.present_bytes();
    state_.count(old_bytes);
    if (old_bytes > 0)
      log(LogLevel::kInfo,
          fmt::format("{}: going on after {} of {} bytes", file.name, old_bytes, source.size));
    for (;;) {
      fetch_content(state_, client, commit_, file, source, part, in_parallel);
      const std::string hash = blob_hash(part.path(), source.size, source.blob,
                                         [&](int64_t) { state_.throw_if_stopped(); });
      if (hash == source.blob) break;
      if (old_bytes == 0) {
        ::unlink(part.path().c_str());
        throw Error(ErrorKind::kInput,
                    fmt::format("{}: {}: what came has the hash {}, expected {}", name_.text(),
                                file.name, hash, source.blob),
                    "it was thrown away; pull again, and if that does not help, something on the "
                    "way changes files");
      }
      log(LogLevel::kWarning,
          file.name + ": what an earlier pull left is damaged, fetching all of it again");
      part.start_over();
      state_.count(-source.size);
      old_bytes = 0;
    }
    part.finish();
    const fs::path blob = model_.blob(source.blob);
    if (::rename(part.path().c_str(), blob.c_str()) != 0)
      fail_resource("{}: cannot create: {}", blob.string(), std::strerror(errno));
    log(LogLevel::kDebug, fmt::format("{}: {} bytes, hash as expected", file.name, source.size));
  }

  // Before the first of many gigabytes rather than after most of them.
  void check_room(const std::vector<HubFile>& files) const {
    int64_t needed = 0;
    for (const HubFile& file : files) {
      if (file.blob.empty() || file.size < 0 || size_of(model_.blob(file.blob)) == file.size)
        continue;
      needed += std::max<int64_t>(0, file.size - size_of(model_.part(file.blob)).value_or(0));
    }
    fs::path folder = model_.cache();
    std::error_code error;
    while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
    struct statvfs disk {};
    if (::statvfs(folder.c_str(), &disk) != 0) return;  // the attempt will tell
    const auto free = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
    if (needed > free)
      throw Error(ErrorKind::kResource,
                  fmt::format("{}: {} bytes free, {} needs {}", model_.cache().string(), free,
                              name_.text(), needed),
                  "make room (lapidary list, lapidary rm), or set HF_HUB_CACHE to another disk");
  }

  ModelCache model_;
  const HubName& name_;
  PullState state_;
  HttpClient client_;
  std::string commit_;
};

}  // namespace

Pulled pull(const HubName& name, const fs::path& cache, const HubAccess& access,
            const FileSelection& selection, const Watch& watch) {
  if (access.offline)
    throw Error(ErrorKind::kInput, name.text() + ": HF_HUB_OFFLINE is set, the hub is not asked",
                "unset it; lapidary list shows what is there already");
  return Pull(name, cache, access, watch).run(selection);
}

}  // namespace lapidary
