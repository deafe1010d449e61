// What may be asked of decoding, and what a model must have for it.
#include <cmath>
#include <iterator>

#include <fmt/ranges.h>

#include "lapidary/decoding.h"

#include "base/fail.h"
#include "generate/engine_impl.h"

namespace lapidary {

namespace {

template <class Kind, size_t n>
Kind kind_named(std::string_view name, const std::string_view (&names)[n], std::string_view what) {
  for (size_t i = 0; i < n; ++i)
    if (name == names[i]) return static_cast<Kind>(i);
  fail_usage("{}: '{}' is none of {}", what, name, fmt::join(names, ", "));
}

void check_set_block(const SetBlockOptions& o, const Engine& engine) {
  const Config& config = engine.config();
  const int64_t most =
      std::min<int64_t>(kMaxBlock, config.sliding_window > 0 ? config.sliding_window : kMaxBlock);
  if (o.block < 1 || o.block > most) fail_usage("block: {} given, expected 1 to {}", o.block, most);
  if (!(o.gamma >= 0)) fail_usage("gamma: {} given, expected 0 or more, or inf", o.gamma);
  mask_token(engine, o);
}

void check_draft(const std::shared_ptr<const Engine>& draft, const Engine& engine) {
  if (!draft) fail_usage("decode: draft needs a smaller model to guess with");
  if (!draft->has_tokenizer() || !engine.has_tokenizer()) {
    if (draft->config().vocab_size != engine.config().vocab_size)
      fail("{}: has {} tokens where {} has {}: it can't guess for it", draft->folder().string(),
           draft->config().vocab_size, engine.folder().string(), engine.config().vocab_size);
    return;
  }
  // Rows of the tables say nothing: models of one tokenizer are padded to different numbers of
  // them.
  for (Token id = 0; id < std::min(draft->tokenizer().size(), engine.tokenizer().size()); ++id)
    if (draft->tokenizer().piece(id) != engine.tokenizer().piece(id))
      fail("{}: token {} is '{}' where {} has '{}': it can't guess for it",
           draft->folder().string(), id, draft->tokenizer().piece(id), engine.folder().string(),
           engine.tokenizer().piece(id));
}

}  // namespace

DecodeMode decode_mode_named(std::string_view name) {
  return kind_named<DecodeMode>(name, kDecodeModes, "decode");
}

RevealOrder reveal_order_named(std::string_view name) {
  return kind_named<RevealOrder>(name, kRevealOrders, "order");
}

Token mask_token(const Engine& engine, const SetBlockOptions& options) {
  const int vocabulary = engine.config().vocab_size;
  const auto checked = [&](int64_t id, std::string_view where) {
    if (id < 0 || id >= vocabulary)
      fail("{}: token id {} is not in the vocabulary of {}", where, id, vocabulary);
    return static_cast<Token>(id);
  };
  if (options.mask) return checked(*options.mask, "mask");
  if (const auto& training = inside(engine).set_block)
    return checked(training->mask_token_id, fmt::format("{}: set_block", engine.folder().string()));
  if (engine.has_tokenizer())
    if (const auto id = engine.tokenizer().find("<mask>")) return checked(*id, "<mask>");
  throw Error(
      ErrorKind::kInput,
      fmt::format("{}: has no <mask> token to stand for those to come", engine.folder().string()),
      "name a token that texts do not have with --mask-token");
}

bool trained_for_blocks(const Engine& engine) {
  return inside(engine).set_block.has_value();
}

std::optional<int64_t> trained_block(const Engine& engine) {
  const auto& training = inside(engine).set_block;
  return training ? std::optional(training->block_max) : std::nullopt;
}

void check_decode_options(const DecodeOptions& o, const Engine& engine) {
  if (o.mode == DecodeMode::kSetBlock || o.mode == DecodeMode::kBlockDraft)
    return check_set_block(o.set_block, engine);
  if (o.draft_max < 1 || o.draft_max >= kMaxBlock)
    fail_usage("draft-max: {} given, expected 1 to {}", o.draft_max, kMaxBlock - 1);
  if (o.ngram_max < 1) fail_usage("ngram-max: {} given, expected 1 or more", o.ngram_max);
  if (o.mode == DecodeMode::kDraft) check_draft(o.draft, engine);
}

}  // namespace lapidary
