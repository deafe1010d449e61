#include "isolate/contexts.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/text_hash.h"

namespace lapidary {

Contexts::Contexts(std::shared_ptr<const Engine> engine, const PlannedCondition& plan, bool chat,
                   MessageFn messages, int64_t& held, std::filesystem::path files)
    : engine_(std::move(engine)),
      plan_(plan),
      chat_(chat),
      messages_(std::move(messages)),
      held_(held),
      files_(std::move(files)),
      contexts_(plan.caches.size()) {}

const Context& Contexts::read(size_t cache, const Watch& watch, const ReadFn& on_read) {
  if (!has(cache)) {
    if (plan_.condition == Condition::kMask)
      read_shared(cache, watch, on_read);
    else
      read_alone(cache, watch, on_read);
  }
  return *contexts_[cache];
}

// A shared cache goes as a whole.
void Contexts::forget(size_t cache) {
  if (!shared_) contexts_[cache].reset();
}

void Contexts::forget_all() {
  for (std::optional<Context>& context : contexts_) context.reset();
  shared_.reset();
}

std::vector<Token> Contexts::ids(size_t cache) const {
  return context_tokens(engine_->tokenizer(), context_text(plan_, plan_.caches[cache], messages_),
                        chat_);
}

// A file is named by its tokens: conditions that read the same have one.
Context Contexts::restored_or_read(std::span<const Token> tokens, const Watch& watch) const {
  const std::filesystem::path file =
      files_ / fmt::format("{:016x}.safetensors", hash_tokens(0, tokens));
  Context made{.tokens = std::ssize(tokens)};
  if (!files_.empty() && std::filesystem::exists(file)) {
    made.session = std::make_shared<Session>(Session::restore(engine_, file));
    if (!std::ranges::equal(made.session->tokens(), tokens))
      fail("{}: has other tokens than the context that is named so", file.string());
  } else {
    made.session = std::make_shared<Session>(engine_);
    made.session->append(tokens, watch);
    made.prefilled = made.tokens;
    if (!files_.empty()) made.session->snapshot(file);
  }
  return made;
}

void Contexts::read_alone(size_t cache, const Watch& watch, const ReadFn& on_read) {
  const Stopwatch clock;
  const std::vector<Token> tokens = ids(cache);
  Context made = restored_or_read(tokens, watch);
  made.bytes = made.session->kv_bytes();
  made.hold = std::make_shared<Hold>(held_, made.bytes);
  contexts_[cache] = std::move(made);
  if (on_read) on_read(cache, *contexts_[cache], clock.seconds());
}

// The contexts that wait for nothing lie in the cache as their turns come in the conversation;
// the others come after them.
void Contexts::read_shared(size_t cache, const Watch& watch, const ReadFn& on_read) {
  if (!shared_) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < contexts_.size(); ++i)
      if (plan_.caches[i].messages.empty()) ready.push_back(i);
    shared_ = std::make_shared<Session>(Session::labelled(engine_));
    read_interleaved(ready, watch, on_read);
  }
  if (!has(cache)) read_interleaved({cache}, watch, on_read);
}

// A context's ids, cut where its turns end, as near as the share of their text in bytes tells.
void Contexts::cut(size_t cache, std::span<const Token> tokens,
                   std::vector<Stretch>& stretches) const {
  const std::vector<ContextPiece>& pieces = plan_.caches[cache].pieces;
  double bytes = 0, before = 0;
  for (const ContextPiece& piece : pieces) bytes += static_cast<double>(piece.text.size());
  size_t begin = 0;
  for (const ContextPiece& piece : pieces) {
    before += static_cast<double>(piece.text.size());
    const size_t end =
        &piece == &pieces.back()
            ? tokens.size()
            : static_cast<size_t>(before / bytes * static_cast<double>(tokens.size()));
    stretches.push_back({piece.turn, cache, tokens.subspan(begin, end - begin)});
    begin = end;
  }
}

void Contexts::read_interleaved(const std::vector<size_t>& caches, const Watch& watch,
                                const ReadFn& on_read) {
  const Stopwatch clock;
  std::map<size_t, std::vector<Token>> tokens;
  std::vector<Stretch> stretches;
  for (const size_t i : caches) {
    tokens[i] = ids(i);
    cut(i, tokens[i], stretches);
  }
  std::ranges::stable_sort(stretches, {}, &Stretch::turn);
  const int64_t before = shared_->kv_bytes();
  for (const Stretch& stretch : stretches) {
    const StepItem item{shared_.get(), stretch.tokens, static_cast<int>(stretch.cache)};
    engine_->step({&item, 1}, watch);
  }
  const auto count = static_cast<double>(caches.size());
  const int64_t bytes = (shared_->kv_bytes() - before) / std::ssize(caches);
  for (const size_t i : caches) {
    contexts_[i] = {.session = shared_,
                    .label = static_cast<int>(i),
                    .tokens = std::ssize(tokens[i]),
                    .prefilled = std::ssize(tokens[i]),
                    .bytes = bytes,
                    .hold = std::make_shared<Hold>(held_, bytes)};
    if (on_read) on_read(i, *contexts_[i], clock.seconds() / count);
  }
}

}  // namespace lapidary
