// pull() against a hub on this machine that misbehaves in every way that can be thought of.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <httplib.h>
#include <memory>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "lapidary/hub.h"

#include "base/json.h"
#include "io/hash.h"
#include "io/hub_cache.h"
#include "io/hub_part.h"
#include "io/test_files.h"

namespace lapidary {

namespace {

using httplib::Request;
using httplib::Response;

const std::string kCommit = "0123456789012345678901234567890123456789";

std::string noise(size_t size) {
  std::string bytes(size, 0);
  uint32_t state = 1;
  for (char& c : bytes) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

std::string hash_of(const std::string& bytes, bool large) {
  const ScratchFolder folder;
  folder.write("f", bytes);
  return blob_hash(folder.path() / "f", std::ssize(bytes), std::string(large ? 64 : 40, '0'),
                   [](int64_t) {});
}

// A server on a free port of the loopback, while it lives.
class Server {
 public:
  Server() { port_ = server_.bind_to_any_port("127.0.0.1"); }
  ~Server() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  void start() {
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  httplib::Server& operator*() { return server_; }
  httplib::Server* operator->() { return &server_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

// The model org/name with a small file and a large one, which is served by another host. The hooks
// see a request before it is answered as usual, and return true when they have answered it.
class Hub {
 public:
  using Hook = std::function<bool(const Request&, Response&)>;
  Hook on_listing, on_file, on_content;
  std::string config = R"({"model_type": "gemma3"})";
  std::string weights = noise(100'000);
  std::atomic<int> content_requests = 0, file_requests = 0;
  std::atomic<int64_t> content_bytes = 0;  // asked for
  std::mutex mutex;
  std::vector<std::string> tokens_at_hub, tokens_at_content;

  Hub() {
    setenv("no_proxy", "*", 1);
    weights_hash = hash_of(weights, true);
    config_hash = hash_of(config, false);
    hub_->Get("/api/models/org/name/revision/(.+)", [this](const Request& q, Response& a) {
      note(q, tokens_at_hub);
      if (on_listing && on_listing(q, a)) return;
      a.set_content(listing().dump(), "application/json");
    });
    hub_->Get("/org/name/resolve/([^/]+)/(.+)", [this](const Request& q, Response& a) {
      note(q, tokens_at_hub);
      ++file_requests;
      if (on_file && on_file(q, a)) return;
      a.set_header("X-Repo-Commit", kCommit);
      if (q.matches[2] == "config.json") {
        a.set_header("ETag", "\"" + config_hash + "\"");
        a.set_content(config, "application/json");
        return;
      }
      a.set_header("X-Linked-Etag", "\"" + weights_hash + "\"");
      a.set_header("X-Linked-Size", std::to_string(weights.size()));
      a.set_redirect(content_.url() + "/content");
    });
    content_->Get("/content", [this](const Request& q, Response& a) {
      note(q, tokens_at_content);
      ++content_requests;
      if (!q.ranges.empty()) content_bytes += q.ranges[0].second - q.ranges[0].first + 1;
      if (on_content && on_content(q, a)) return;
      a.set_content(weights, "application/octet-stream");
    });
    hub_.start();
    content_.start();
    access.endpoint = hub_.url();
    access.token = "hf_secret";
    access.first_wait_seconds = 0.01;
    access.attempts = 4;
    access.stall_seconds = 1;
    access.segment_bytes = 16'384;
    access.connections = 3;
  }

  Json listing() const {
    return {{"sha", kCommit},
            {"siblings",
             {{{"rfilename", "config.json"}, {"size", config.size()}, {"blobId", config_hash}},
              {{"rfilename", "model.safetensors"},
               {"size", weights.size()},
               {"lfs", {{"sha256", weights_hash}, {"size", weights.size()}}}}}}};
  }
  std::string url() const { return hub_.url(); }
  std::string content_url() const { return content_.url(); }

  Pulled pull(const std::string& name = "org/name", const Watch& watch = {}) {
    return lapidary::pull(*parse_hub_name(name), cache.path(), access, {}, watch);
  }
  std::string refused() {
    return error_of([&] { pull(); }, cache.path().string());
  }
  // Of what is wrong: one line, and the hint.
  Error error() {
    try {
      pull();
    } catch (const Error& e) {
      return e;
    }
    return Error(ErrorKind::kInput, "no error");
  }
  std::string file(const std::string& name) const {
    return cache.read("models--org--name/snapshots/" + kCommit + "/" + name);
  }
  ModelCache model() const { return {cache.path(), "org/name"}; }
  bool has_blob() const { return size_of(model().blob(weights_hash)).has_value(); }

  ScratchFolder cache;
  HubAccess access;
  std::string weights_hash, config_hash;

 private:
  void note(const Request& q, std::vector<std::string>& tokens) {
    const std::lock_guard lock(mutex);
    tokens.push_back(q.get_header_value("Authorization"));
  }
  Server hub_, content_;
};

// Sends the first `sent` of `said` bytes, then closes the connection.
void send_front(Response& a, const std::string& bytes, size_t sent) {
  a.set_content_provider(bytes.size(), "application/octet-stream",
                         [bytes, sent](size_t offset, size_t length, httplib::DataSink& sink) {
                           if (offset >= sent) return false;
                           sink.write(bytes.data() + offset, std::min(length, sent - offset));
                           return true;
                         });
}

TEST(Pull, FillsTheCacheAsHuggingfaceHubDoes) {
  Hub hub;
  const Pulled pulled = hub.pull();
  EXPECT_EQ(pulled.files, 2);
  EXPECT_EQ(pulled.bytes, std::ssize(hub.weights) + std::ssize(hub.config));
  EXPECT_EQ(pulled.downloaded_bytes, pulled.bytes);
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
  EXPECT_EQ(hub.file("config.json"), hub.config);
  EXPECT_EQ(hub.cache.read("models--org--name/refs/main"), kCommit);
  EXPECT_EQ(std::filesystem::read_symlink(pulled.snapshot / "config.json"),
            "../../blobs/" + hub.config_hash);
  EXPECT_EQ(find_snapshot(hub.cache.path(), {"org/name", ""}), pulled.snapshot);
  EXPECT_TRUE(std::filesystem::exists(hub.model().lock(hub.weights_hash)));
  EXPECT_GE(hub.content_requests, 7);  // of 100,000 bytes, 16,384 at a time

  const int requests = hub.content_requests + hub.file_requests;
  EXPECT_EQ(hub.pull().downloaded_bytes, 0);
  EXPECT_EQ(hub.content_requests + hub.file_requests, requests);
}

TEST(Pull, SendsTheTokenToTheHubAlone) {
  Hub hub;
  hub.pull();
  ASSERT_FALSE(hub.tokens_at_content.empty());
  for (const std::string& token : hub.tokens_at_hub) EXPECT_EQ(token, "Bearer hf_secret");
  for (const std::string& token : hub.tokens_at_content) EXPECT_EQ(token, "");
}

TEST(Pull, FollowsRedirectsOfTheListingWithoutTheToken) {
  Hub hub;
  hub.on_listing = [&](const Request&, Response& a) {
    a.set_redirect(hub.content_url() + "/content");
    return true;
  };
  EXPECT_NE(hub.refused().find("not valid JSON"), std::string::npos);
  for (const std::string& token : hub.tokens_at_content) EXPECT_EQ(token, "");
}

TEST(Pull, OpensNothingButTheWeb) {
  Hub hub;
  for (const char* target : {"file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"}) {
    hub.on_listing = [&](const Request&, Response& a) {
      a.set_redirect(target);
      return true;
    };
    EXPECT_NE(hub.refused().find("rotocol"), std::string::npos) << target << hub.refused();
  }
}

TEST(Pull, AsksOnlyForWhatIsMissing) {
  Hub hub;
  {
    make_folders(hub.model().blobs());
    PartFile part(hub.model().part(hub.weights_hash), std::ssize(hub.weights), 16'384);
    part.put(0, as_span(hub.weights).first(10'000));
    part.put(32'768, as_span(hub.weights).subspan(32'768, 16'384));
  }
  const Pulled pulled = hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
  EXPECT_EQ(hub.content_bytes, 100'000 - 10'000 - 16'384);
  EXPECT_EQ(pulled.downloaded_bytes, 100'000 - 10'000 - 16'384 + std::ssize(hub.config));
}

TEST(Pull, FetchesAgainWhatAnEarlierPullLeftDamaged) {
  Hub hub;
  {
    make_folders(hub.model().blobs());
    PartFile part(hub.model().part(hub.weights_hash), std::ssize(hub.weights), 16'384);
    part.put(0, as_span(std::string(10'000, 'x')));
  }
  hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
}

TEST(Pull, GoesOnWhereAConnectionBreaks) {
  Hub hub;
  std::atomic<int> requests = 0, broken = 0;
  hub.on_content = [&](const Request& q, Response& a) {
    if (requests++ % 2 == 1) return false;
    ++broken;
    send_front(a, hub.weights, static_cast<size_t>(q.ranges[0].first) + 5'000);
    return true;
  };
  hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
  EXPECT_GE(broken, 4);
  EXPECT_LE(hub.content_bytes, 100'000 + broken * (16'384 - 5'000));  // no byte twice
}

TEST(Pull, TakesTheWholeFileFromAServerWithoutRanges) {
  Hub hub;
  hub.on_content = [](const Request& q, Response& a) {
    const_cast<Request&>(q).ranges.clear();
    a.status = 200;
    return false;
  };
  hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
}

TEST(Pull, GivesUpOnAServerThatStalls) {
  Hub hub;
  hub.access.attempts = 2;
  hub.on_content = [&](const Request&, Response& a) {
    a.set_content_provider(hub.weights.size(), "application/octet-stream",
                           [](size_t, size_t, httplib::DataSink& sink) {
                             std::this_thread::sleep_for(std::chrono::milliseconds(100));
                             return sink.is_writable();
                           });
    return true;
  };
  const Error error = hub.error();
  EXPECT_EQ(error.kind(), ErrorKind::kResource);
  EXPECT_NE(std::string(error.what()).find("too slow"), std::string::npos) << error.what();
  EXPECT_FALSE(hub.has_blob());
}

TEST(Pull, WaitsWhenTheServerIsBusyOrBroken) {
  Hub hub;
  hub.access.connections = 1;  // else one of them might get all the refusals
  std::atomic<int> answers = 0;
  const int kinds[] = {429, 500, 503};
  hub.on_content = [&](const Request&, Response& a) {
    const int i = answers++;
    if (i % 2 == 0) a.status = kinds[i / 2 % 3];
    return i % 2 == 0;
  };
  hub.on_listing = [n = 0](const Request&, Response& a) mutable {
    if (n++ > 0) return false;
    a.status = 503;
    return true;
  };
  hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);

  Hub busy;
  busy.on_listing = [n = 0](const Request&, Response& a) mutable {
    if (n++ > 0) return false;
    a.status = 429;
    a.set_header("Retry-After", "1");
    return true;
  };
  const auto start = std::chrono::steady_clock::now();
  busy.pull();
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(Pull, GivesUpInTheEnd) {
  Hub hub;
  int listings = 0;
  hub.on_listing = [&](const Request&, Response& a) {
    ++listings;
    a.status = 500;
    return true;
  };
  EXPECT_EQ(hub.refused(), "org/name: " + hub.url() + " is out of order (HTTP 500)");
  EXPECT_EQ(listings, 4);
  hub.on_listing = [&](const Request&, Response& a) {
    a.status = 429;
    a.set_header("Retry-After", "4000");
    return true;
  };
  EXPECT_NE(hub.error().hint().find("in 4000 s"), std::string::npos);
  hub.access.endpoint = "http://127.0.0.1:1";
  EXPECT_NE(hub.refused().find("http://127.0.0.1:1"), std::string::npos);
}

TEST(Pull, ThrowsAwayWhatHasAnotherHash) {
  Hub hub;
  hub.weights[50'000] ^= 1;  // after its hash was taken
  EXPECT_NE(hub.refused().find(", expected " + hub.weights_hash), std::string::npos);
  EXPECT_FALSE(hub.has_blob());
  EXPECT_FALSE(std::filesystem::exists(hub.model().part(hub.weights_hash)));
  EXPECT_FALSE(
      find_snapshot(hub.cache.path(), {"org/name", ""}));  // no ref, though config.json came
}

TEST(Pull, RefusesSizesThatDisagree) {
  Hub hub;
  hub.on_content = [&](const Request& q, Response& a) {
    const_cast<Request&>(q).ranges.clear();
    a.status = 200;
    a.set_content(hub.weights + "x", "application/octet-stream");
    return true;
  };
  EXPECT_NE(hub.refused().find("sends 100001 bytes, expected 100000"), std::string::npos);
  hub.on_content = [&](const Request& q, Response& a) {
    const_cast<Request&>(q).ranges.clear();
    a.status = 206;
    a.set_header("Content-Range", "bytes 0-9/10");
    a.set_content("0123456789", "application/octet-stream");
    return true;
  };
  EXPECT_NE(hub.refused().find("sends Content-Range 'bytes 0-9/10', expected 'bytes "),
            std::string::npos);
  hub.on_content = {};
  hub.on_file = [&](const Request& q, Response& a) {
    if (q.matches[2] == "config.json") return false;
    a.set_header("X-Repo-Commit", kCommit);
    a.set_header("X-Linked-Etag", hub.weights_hash);
    a.set_header("X-Linked-Size", "99999");
    a.set_redirect(hub.content_url() + "/content");
    return true;
  };
  EXPECT_NE(hub.refused().find("size is '99999', expected 100000 as in its list"),
            std::string::npos);
  EXPECT_FALSE(hub.has_blob());
}

TEST(Pull, RefusesMoreBytesThanItAskedFor) {
  Hub hub;
  hub.on_content = [&](const Request& q, Response& a) {  // no length, and no end
    const_cast<Request&>(q).ranges.clear();
    a.status = 200;
    a.set_chunked_content_provider("application/octet-stream", [](size_t, httplib::DataSink& sink) {
      const std::string piece(10'000, 'x');
      return sink.write(piece.data(), piece.size());
    });
    return true;
  };
  EXPECT_NE(hub.refused().find("sends more bytes than the 100000 expected"), std::string::npos);
}

TEST(Pull, RefusesHeadersThatNameNoHashOrAnotherCommit) {
  Hub hub;
  std::string etag = "../../../x", commit = kCommit;
  hub.on_file = [&](const Request&, Response& a) {
    a.set_header("X-Repo-Commit", commit);
    a.set_header("ETag", etag);
    a.set_content("{}", "application/json");
    return true;
  };
  EXPECT_NE(hub.refused().find("ETag is '../../../x', expected a hash"), std::string::npos);
  etag = std::string(40, 'e');
  EXPECT_NE(hub.refused().find("ETag is '" + etag + "', expected "), std::string::npos);
  commit = std::string(40, 'f');
  EXPECT_NE(hub.refused().find("X-Repo-Commit is '" + commit), std::string::npos);
}

TEST(Pull, RefusesListingsThatLeaveTheCacheOrNeverEnd) {
  Hub hub;
  for (const char* name : {"../evil.json", "/tmp/evil.json", "a/../../evil.json"}) {
    hub.on_listing = [&](const Request&, Response& a) {
      a.set_content(Json{{"sha", kCommit}, {"siblings", {{{"rfilename", name}}}}}.dump(), "x/y");
      return true;
    };
    EXPECT_NE(hub.refused().find("is not a name within"), std::string::npos) << name;
  }
  hub.on_listing = [&](const Request&, Response& a) {
    a.set_chunked_content_provider("x/y", [](size_t, httplib::DataSink& sink) {
      const std::string blanks(1 << 20, ' ');
      return sink.write(blanks.data(), blanks.size());
    });
    return true;
  };
  EXPECT_NE(hub.refused().find("the list of its files has more than"), std::string::npos);
  EXPECT_TRUE(hub.cache.names().empty());
}

TEST(Pull, TellsRefusalsApart) {
  Hub hub;
  int status = 401;
  std::string code;
  hub.on_listing = [&](const Request&, Response& a) {
    a.status = status;
    if (!code.empty()) a.set_header("X-Error-Code", code);
    a.set_header("X-Error-Message", "Fine-grained\x1b[31m token");
    return true;
  };
  const auto check = [&](int s, const char* c, bool token, const char* words, const char* hint) {
    status = s;
    code = c;
    hub.access.token = token ? "hf_secret" : "";
    const Error error = hub.error();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    EXPECT_NE(error.hint().find(hint), std::string::npos) << error.hint();
    EXPECT_EQ((error.what() + error.hint()).find("hf_secret"), std::string::npos);
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
  };
  check(401, "", true, "does not accept the token (HTTP 401)", "/settings/tokens");
  check(401, "RepoNotFound", false, "or a private or gated one (HTTP 401)", "HF_TOKEN");
  check(404, "RepoNotFound", true, "no such model", "check the name");
  check(401, "GatedRepo", false, "no token was given", "/org/name, then set HF_TOKEN");
  check(403, "GatedRepo", true, "has no access (HTTP 403)", "accept the licence at ");
  check(403, "", true, "access denied: Fine-grained\\x1b[31m token", "what the token may do");
  check(404, "RevisionNotFound", true, "has no revision 'main'", "branches and tags");
  check(404, "", true, "no such model at", "check the name");
}

TEST(Pull, RenewsLinksThatHaveRunOut) {
  Hub hub;
  std::atomic<int> refused = 0;
  hub.on_content = [&](const Request&, Response& a) {
    if (refused++ != 3) return false;
    a.status = 403;
    return true;
  };
  hub.pull();
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
  EXPECT_GE(hub.file_requests, 4);  // two of config.json, and the one that renewed
}

TEST(Pull, StopsWhenAskedAndKeepsWhatCame) {
  Hub hub;
  std::stop_source stop;
  hub.on_content = [&](const Request&, Response&) {
    if (hub.content_requests > 3) stop.request_stop();
    return false;
  };
  hub.access.connections = 1;
  try {
    hub.pull("org/name", Watch{{}, stop.get_token()});
    FAIL() << "it was not interrupted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_FALSE(hub.has_blob());
  hub.on_content = {};
  hub.content_bytes = 0;
  hub.pull();
  EXPECT_LE(hub.content_bytes, 100'000 - 3 * 16'384);
  EXPECT_EQ(hub.file("model.safetensors"), hub.weights);
}

TEST(Pull, WaitsForAnotherPullOfTheSameFile) {
  Hub hub;
  std::atomic<int> pulls = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { pulls += hub.pull().files == 2; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pulls, 3);
  EXPECT_EQ(hub.content_bytes, 100'000);  // once
}

TEST(Pull, ReplacesNoGoodFileByABadOne) {
  Hub hub;
  hub.pull();
  const std::string old = hub.weights, old_hash = hub.weights_hash;
  hub.weights = noise(120'000);
  hub.weights_hash = std::string(64, 'e');  // a lie
  hub.on_listing = [&](const Request&, Response& a) {
    Json changed = hub.listing();
    changed["sha"] = std::string(40, 'd');
    a.set_content(changed.dump(), "x/y");
    return true;
  };
  hub.on_file = [&](const Request& q, Response& a) {
    if (q.matches[2] == "config.json") return false;
    a.set_header("X-Repo-Commit", std::string(40, 'd'));
    a.set_header("X-Linked-Etag", hub.weights_hash);
    a.set_redirect(hub.content_url() + "/content");
    return true;
  };
  EXPECT_NE(hub.refused().find("hash"), std::string::npos);
  EXPECT_EQ(hub.file("model.safetensors"), old);
  EXPECT_EQ(hub.cache.read("models--org--name/refs/main"), kCommit);
  EXPECT_TRUE(size_of(hub.model().blob(old_hash)));
}

}  // namespace

}  // namespace lapidary
