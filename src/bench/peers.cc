#include "bench/peers.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "lapidary/generate.h"

#include "base/fail.h"
#include "base/system.h"
#include "bench/random_tokens.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

// A child process whose stdin and stdout are the other end of one socket.
class PeerProcess {
 public:
  explicit PeerProcess(const PeerCommand& peer);
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  Json read(const Watch& watch);
  void write(const Json& request);
  int id() const { return process_; }
  [[noreturn]] void complain(const std::string& what) const {
    fail_resource("peer {}: {}", name_, what);
  }

 private:
  bool take_line(std::string& line);

  std::string name_;
  int socket_ = -1;
  pid_t process_ = -1;
  std::string buffer_;  // read and not yet taken
};

PeerProcess::PeerProcess(const PeerCommand& peer) : name_(peer.name) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    complain(fmt::format("no socket: {}", std::strerror(errno)));
  socket_ = ends[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::string shell = "sh", flag = "-c", line = "exec " + peer.command;  // the id is the peer's own
  char* const words[] = {shell.data(), flag.data(), line.data(), nullptr};
  const int error = posix_spawn(&process_, "/bin/sh", &actions, nullptr, words, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(socket_);
    complain(fmt::format("cannot be started: {}", std::strerror(error)));
  }
}

PeerProcess::~PeerProcess() {
  close(socket_);
  kill(process_, SIGTERM);  // it may be in the middle of something, and nobody waits for that
  waitpid(process_, nullptr, 0);
}

bool PeerProcess::take_line(std::string& line) {
  const size_t end = buffer_.find('\n');
  if (end == std::string::npos) return false;
  line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return true;
}

Json PeerProcess::read(const Watch& watch) {
  std::string line;
  for (;;) {
    while (take_line(line)) {
      if (!line.starts_with('{')) continue;
      const Json json = Json::parse(line, nullptr, false);
      if (json.is_discarded()) complain(fmt::format("'{:.60}' is not JSON", line));
      return json;
    }
    watch.throw_if_stopped();
    constexpr int kMilliseconds = 100;  // between two looks at the stop request
    pollfd waiting{socket_, POLLIN, 0};
    if (poll(&waiting, 1, kMilliseconds) <= 0) continue;
    char bytes[4096];
    const ssize_t count = recv(socket_, bytes, sizeof bytes, 0);
    if (count <= 0) complain("ended before it answered");
    buffer_.append(bytes, static_cast<size_t>(count));
  }
}

void PeerProcess::write(const Json& request) {
  const std::string line = request.dump() + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t count = send(socket_, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (count <= 0) complain("does not read its input");
    done += static_cast<size_t>(count);
  }
}

double seconds_of(const PeerProcess& peer, const Json& answer, const char* key) {
  const auto value = answer.find(key);
  if (value == answer.end() || !value->is_number())
    peer.complain(fmt::format("no number '{}' in {:.60}", key, answer.dump()));
  return value->get<double>();
}

PeerRun ask(PeerProcess& peer, std::span<const Token> ids, int64_t n, const Watch& watch) {
  peer.write({{"ids", ids}, {"n", n}});
  const Json answer = peer.read(watch);
  PeerRun run{.first_token_seconds = seconds_of(peer, answer, "ttft_s"),
              .decode_seconds = seconds_of(peer, answer, "decode_s"),
              .tokens = {}};
  for (const Json& id : answer.value("tokens", Json::array()))
    if (id.is_number_integer()) run.tokens.push_back(id.get<Token>());
  if (std::ssize(run.tokens) != n)
    peer.complain(fmt::format("{} tokens made, expected {}", run.tokens.size(), n));
  return run;
}

PeerRun run_engine(const std::shared_ptr<const Engine>& engine, std::span<const Token> ids,
                   int64_t n, const Watch& watch) {
  Session session(engine, std::ssize(ids) + n);
  GenerateOptions options{.max_tokens = n, .ignore_eos = true};
  options.sampling.temperature = 0;
  const Generation made = generate(session, ids, options, {}, Watch{{}, watch.stop});
  watch.throw_if_stopped();
  return {made.first_token_seconds, made.decode_seconds, made.tokens};
}

}  // namespace

std::vector<PeerResult> measure_peers(std::shared_ptr<const Engine> engine, double load_seconds,
                                      std::span<const PeerCommand> peers,
                                      const PeerOptions& options, const Watch& watch) {
  const std::vector<Token> ids = RandomTokens(*engine).run(0, 0, options.prompt);
  std::vector<PeerResult> results{{.name = "lapidary", .load_seconds = load_seconds}};
  std::vector<std::unique_ptr<PeerProcess>> processes;
  std::vector<std::function<PeerRun()>> programs{
      [&] { return run_engine(engine, ids, options.gen, watch); }};
  for (const PeerCommand& command : peers) {
    PeerProcess* peer = processes.emplace_back(std::make_unique<PeerProcess>(command)).get();
    results.push_back(
        {.name = command.name, .load_seconds = seconds_of(*peer, peer->read(watch), "load_s")});
    programs.push_back([&, peer] { return ask(*peer, ids, options.gen, watch); });
  }
  const auto total = static_cast<int64_t>(programs.size()) * (options.repetitions + 1);
  int64_t done = 0;
  for (int round = 0; round <= options.repetitions; ++round)
    for (size_t i = 0; i < programs.size(); ++i) {
      watch.throw_if_stopped();
      std::this_thread::sleep_for(std::chrono::duration<double>(options.pause));
      PeerRun run = programs[i]();
      if (round > 0) results[i].runs.push_back(std::move(run));  // the first round warms up
      watch.report(++done, total);
    }
  results[0].peak_rss_bytes = peak_rss_bytes();
  for (size_t i = 0; i < processes.size(); ++i)
    results[i + 1].peak_rss_bytes = peak_rss_bytes_of(processes[i]->id());
  return results;
}

}  // namespace lapidary
