#include "lapidary/session.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/system.h"
#include "generate/engine_impl.h"

namespace lapidary {

Session::Impl::Impl(std::shared_ptr<const Engine> e, int64_t c)
    : engine(std::move(e)),
      context(c > 0 ? c : engine->config().max_position_embeddings),
      cache(engine->config(), engine->impl_->kv_type, engine->impl_->kv_pool) {}

Segment Session::Impl::segment(std::span<const Token> more, int label,
                               std::span<const Token> block) {
  LAPIDARY_CHECK(labelled || label == 0, "labels are of labelled sessions");
  return {.cache = &cache,
          .rows = std::ssize(more) + std::ssize(block),
          .share = labelled ? &shares[label] : nullptr,
          .undecided = std::ssize(block)};
}

void Session::Impl::appended(std::span<const Token> more, int label) {
  const int64_t length = std::ssize(tokens);
  if (labelled) shares[label].add(length, length + std::ssize(more));
  tokens.insert(tokens.end(), more.begin(), more.end());
}

int64_t Session::Impl::length(int label) const {
  if (!labelled) return std::ssize(tokens);
  const auto share = shares.find(label);
  return share != shares.end() ? share->second.length() : 0;
}

void Session::Impl::check_append(std::span<const Token> more, int label,
                                 std::span<const Token> block) const {
  const int64_t wanted = length(label) + std::ssize(more) + std::ssize(block);
  if (wanted > context)
    throw Error(ErrorKind::kInput,
                fmt::format("{} tokens do not fit the context of {}: {} too many", wanted, context,
                            wanted - context),
                "shorten the prompt or raise the context");
  check_ids(more, engine->config().vocab_size);
  check_ids(block, engine->config().vocab_size);
}

void check_ids(std::span<const Token> ids, int vocabulary) {
  for (const Token id : ids)
    if (id < 0 || id >= vocabulary)
      fail("token id {} is not in the vocabulary of {}", id, vocabulary);
}

Session::Session(std::shared_ptr<const Engine> engine, int64_t context)
    : impl_(std::make_unique<Impl>(std::move(engine), context)) {
  if (context < 0) fail_usage("context: {} is negative", context);
  check_generates(impl_->engine->config(), impl_->engine->folder());
  // Only a length that was asked for is checked: nobody fills 128k positions by accident.
  if (context == 0 || !impl_->engine->impl_->options.check_memory) return;
  const int64_t need = impl_->engine->forecast(impl_->context).kv_cache;
  if (const int64_t available = available_memory_bytes(); need > available)
    throw Error(
        ErrorKind::kResource,
        fmt::format("a context of {} tokens needs {} MiB for keys and values; {} MiB of memory "
                    "are available",
                    impl_->context, need >> 20, available >> 20),
        "use a smaller context");
}

Session Session::labelled(std::shared_ptr<const Engine> engine, int64_t context) {
  Session session(std::move(engine), context);
  Impl& impl = *session.impl_;
  impl.labelled = true;
  impl.cache = KvCache(full_attention_everywhere(impl.engine->config()),
                       impl.engine->impl_->kv_type, impl.engine->impl_->kv_pool);
  return session;
}

Session Session::with_layer_types(std::shared_ptr<const Engine> engine,
                                  std::vector<LayerType> types, int64_t context) {
  Session session(std::move(engine), context);
  Impl& impl = *session.impl_;
  Config config = impl.engine->config();
  LAPIDARY_CHECK(types.size() == config.layer_types.size(), "a type for every layer");
  config.layer_types = std::move(types);
  impl.other_layer_types = true;
  impl.cache = KvCache(config, impl.engine->impl_->kv_type, impl.engine->impl_->kv_pool);
  return session;
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

const Engine& Session::engine() const {
  return *impl_->engine;
}
int64_t Session::context() const {
  return impl_->context;
}
int64_t Session::length() const {
  return std::ssize(impl_->tokens);
}
std::span<const Token> Session::tokens() const {
  return impl_->tokens;
}
int64_t Session::kv_bytes() const {
  return impl_->cache.bytes();
}
std::vector<std::span<const std::byte>> Session::kv_blocks(int layer) const {
  const auto size = static_cast<size_t>(impl_->engine->impl_->kv_pool->block_bytes());
  std::vector<std::span<const std::byte>> blocks;
  for (const std::byte* block : impl_->cache.blocks(layer)) blocks.emplace_back(block, size);
  return blocks;
}
std::span<const float> Session::logits() const {
  return impl_->logits;
}

std::span<const float> Session::append(std::span<const Token> tokens, const Watch& watch) {
  const StepItem item{this, tokens};
  impl_->engine->step({&item, 1}, watch);
  return impl_->logits;
}

void Session::score(std::span<const Token> tokens,
                    const std::function<void(int64_t, std::span<const float>)>& fn,
                    const Watch& watch, int label) {
  const StepItem item{.session = this, .tokens = tokens, .label = label, .on_token = fn};
  impl_->engine->step({&item, 1}, watch);
}

int64_t Session::sync(std::span<const Token> wanted, const Watch& watch) {
  const auto& have = impl_->tokens;
  const auto [h, w] = std::mismatch(have.begin(), have.end(), wanted.begin(), wanted.end());
  if (w == wanted.end() && h == have.end() && !impl_->logits.empty()) return 0;
  auto common = w - wanted.begin();
  if (common == std::ssize(wanted) && common > 0) --common;  // its logits are wanted
  const int64_t recomputed = trim(common, watch);
  append(wanted.subspan(static_cast<size_t>(common)), watch);
  return recomputed + std::ssize(wanted) - common;
}

int64_t Session::trim(int64_t length, const Watch& watch) {
  LAPIDARY_CHECK(length >= 0 && length <= this->length(), "trim only shortens");
  LAPIDARY_CHECK(!impl_->labelled && !impl_->other_layer_types, "an experiment is not trimmed");
  if (length == this->length()) return 0;
  impl_->logits.clear();
  if (impl_->cache.trim(length)) {
    impl_->tokens.resize(static_cast<size_t>(length));
    return 0;
  }
  const std::vector<Token> kept(impl_->tokens.begin(), impl_->tokens.begin() + length);
  Impl fresh(impl_->engine, impl_->context);
  fresh.tap = std::move(impl_->tap);
  *impl_ = std::move(fresh);
  append(kept, watch);
  impl_->logits.clear();
  return length;
}

void Session::set_tap(Tap tap) {
  impl_->tap = std::move(tap);
}

Session Session::fork() const {
  Session forked(std::make_unique<Impl>(*impl_));
  forked.set_tap({});
  return forked;
}

}  // namespace lapidary
