// The requests of a pull, with the patience that networks need.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "io/hub_http.h"
#include "io/hub_listing.h"
#include "io/hub_part.h"

namespace lapidary {

// Where a pull stands, as all of its threads see it.
class PullState {
 public:
  PullState(const HubAccess& access, const HubName& name, const Watch& watch);

  const HubAccess& access;
  const HubName& name;
  const std::function<bool()> stopped;

  void expect(int64_t bytes) { total_ += bytes; }
  // Bytes that are there; negative when they are dropped.
  void count(int64_t bytes);
  void count_downloaded(int64_t bytes);  // counts them too
  int64_t downloaded() const { return downloaded_; }

  void throw_if_stopped() const;
  // Runs `work` on `threads` threads, each with a client of its own. Rethrows what the first of
  // them threw, after the others have stopped too.
  void on_threads(int threads, const std::function<void(HttpClient&)>& work);

 private:
  const Watch& watch_;
  std::atomic<bool> failed_ = false;
  std::atomic<int64_t> total_ = 0, done_ = 0, downloaded_ = 0;
  std::mutex reporting_;
};

HubListing fetch_listing(PullState& state, HttpClient& client);

// A file at its source.
struct Source {
  std::string blob;  // is_blob_name()
  int64_t size = 0;
  std::string url;  // that serves the content, for an hour or so
};
// Asks the hub. What `file` knows already must agree.
Source fetch_source(PullState& state, HttpClient& client, const std::string& commit,
                    const HubFile& file);

// Brings what `part` lacks, over as many connections as the state's access allows, or over `client`
// alone.
void fetch_content(PullState& state, HttpClient& client, const std::string& commit,
                   const HubFile& file, Source source, PartFile& part, bool in_parallel);

}  // namespace lapidary
