// The contexts of one condition of an example, read when they are first asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/session.h"

#include "isolate/plan.h"

namespace lapidary {

// Bytes of keys and values that somebody needs or will need, counted in `sum` meanwhile.
class Hold {
 public:
  Hold(int64_t& sum, int64_t bytes) : sum_(sum), bytes_(bytes) { sum_ += bytes_; }
  ~Hold() { sum_ -= bytes_; }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  int64_t& sum_;
  int64_t bytes_;
};

// A context that was read. Those of the mask condition are one session, with a label for each.
struct Context {
  std::shared_ptr<Session> session = {};
  int label = 0;
  int64_t tokens = 0;
  int64_t prefilled = 0;  // of the tokens; the others came from a file
  int64_t bytes = 0;      // of keys and values; of a shared cache an even part
  std::shared_ptr<Hold> hold = {};
};

class Contexts {
 public:
  // The text of an output that a context begins with, once it is there.
  using MessageFn = std::function<std::string_view(size_t output)>;
  // Called when a context was read.
  using ReadFn = std::function<void(size_t cache, const Context& context, double seconds)>;

  // `held` grows by the bytes of what is read and of what goes on from it. The plan, `held` and the
  // functions outlive this. `files`, unless empty, is a folder that has snapshots of what was read
  // before, and gets those of what is read; not of a shared cache.
  Contexts(std::shared_ptr<const Engine> engine, const PlannedCondition& plan, bool chat,
           MessageFn messages, int64_t& held, std::filesystem::path files);

  bool has(size_t cache) const { return contexts_[cache].has_value(); }
  // Of one whose messages are there; it need not have been read.
  int64_t count_tokens(size_t cache) const { return std::ssize(ids(cache)); }
  // Throws Error{kInterrupted} and others as Session::append; what was being read is not there
  // then.
  const Context& read(size_t cache, const Watch& watch, const ReadFn& on_read = {});
  // Frees it, but for what goes on from it; one of a shared cache stays until forget_all().
  void forget(size_t cache);
  void forget_all();

 private:
  struct Stretch {
    size_t turn;
    size_t cache;
    std::span<const Token> tokens;
  };

  std::vector<Token> ids(size_t cache) const;
  Context restored_or_read(std::span<const Token> tokens, const Watch& watch) const;
  void read_alone(size_t cache, const Watch& watch, const ReadFn& on_read);
  void read_shared(size_t cache, const Watch& watch, const ReadFn& on_read);
  void read_interleaved(const std::vector<size_t>& caches, const Watch& watch,
                        const ReadFn& on_read);
  void cut(size_t cache, std::span<const Token> ids, std::vector<Stretch>& stretches) const;

  std::shared_ptr<const Engine> engine_;
  const PlannedCondition& plan_;
  bool chat_;
  MessageFn messages_;
  int64_t& held_;
  std::filesystem::path files_;
  std::vector<std::optional<Context>> contexts_;  // of the plan's caches
  std::shared_ptr<Session> shared_;               // of the mask condition
};

}  // namespace lapidary
