// room: generate
// How an answer is decoded: a token for each pass of the model, or several.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lapidary/sampler.h"
#include "lapidary/session.h"

namespace lapidary {

enum class DecodeMode : uint8_t {
  kPlain,       // one token for each pass
  kNgram,       // what followed the same tokens before is guessed, and the model checks it
  kDraft,       // a smaller model guesses, and the model checks it
  kSetBlock,    // Set Block Decoding (arXiv 2509.04185), of a model that was trained for it
  kBlockDraft,  // such a model guesses by blocks, and checks it in the pass that guesses on
};
constexpr std::string_view kDecodeModes[] = {"plain", "ngram", "draft", "set-block", "block-draft"};
constexpr std::string_view name_of(DecodeMode mode) {
  return kDecodeModes[static_cast<size_t>(mode)];
}
DecodeMode decode_mode_named(std::string_view name);  // throws Error{kUsage} with the names

// By what the places of a block that are decided first are chosen.
enum class RevealOrder : uint8_t {
  kEntropy,     // the lowest entropy
  kConfidence,  // the largest probability
  kMargin,      // the largest distance between the two largest probabilities
};
constexpr std::string_view kRevealOrders[] = {"entropy", "confidence", "margin"};
constexpr std::string_view name_of(RevealOrder order) {
  return kRevealOrders[static_cast<size_t>(order)];
}
RevealOrder reveal_order_named(std::string_view name);  // likewise

struct SetBlockOptions {
  int64_t block = 16;  // tokens that are decided together, 1 to kMaxBlock
  // Nats. In one pass as many places are decided, surest first, as have a sum of entropies, the
  // largest left out, of at most this (EB-Sampler, arXiv 2505.24857); at least one. Infinite: all.
  double gamma = 0.35;
  RevealOrder order = RevealOrder::kEntropy;
  std::optional<Token> mask = {};  // what stands for a token to come; none: the model's
};

struct DecodeOptions {
  DecodeMode mode = DecodeMode::kPlain;
  int64_t draft_max = 8;  // of kNgram, kDraft: tokens guessed at once, 1 to kMaxBlock - 1
  int64_t ngram_max = 3;  // the longest run of tokens that is looked up, before shorter ones
  std::shared_ptr<const Engine> draft = {};  // of kDraft: a model with the same tokens
  SetBlockOptions set_block = {};            // of kBlockDraft: `block` and `mask`

  int64_t guesses_at_once() const {
    return mode == DecodeMode::kBlockDraft ? set_block.block - 1 : draft_max;
  }
};

// A token and how it was decided.
struct Reveal {
  int64_t position = 0;  // in the timeline
  Token token = 0;
  double entropy = 0;  // nats
  int64_t pass = 0;    // of the answer, from 1; 0: by what the prompt's pass left
};

// A block while it is filled in.
struct BlockView {
  int64_t position = 0;           // of its first token in the timeline
  std::span<const Token> tokens;  // the mask where nothing is decided
  Token mask = 0;
  int64_t pass = 0;               // of the answer, that has just been made
  std::span<const Reveal> fresh;  // decided by it
};

// The token that stands for one to come: of the options, or what the adapters or the model say it
// was trained with, or the tokenizer's <mask>. Throws Error{kInput} for a model without one.
Token mask_token(const Engine& engine, const SetBlockOptions& options);
// Whether the adapters or the model's config.json, or its GGUF file, say that it was trained to
// fill in blocks.
bool trained_for_blocks(const Engine& engine);
// Tokens of the largest blocks that it was trained on, by the same.
std::optional<int64_t> trained_block(const Engine& engine);

// Throws Error{kUsage} naming the option, its value and what it may be; Error{kInput} for a model
// that lacks what the mode needs.
void check_decode_options(const DecodeOptions& options, const Engine& engine);

// One timeline decoded by blocks, a pass at a time, so that several share their steps: put
// next_pass() of each into Engine::step(), then call reveal().
class BlockDecoder {
 public:
  // The session outlives it, has its prompt, and is changed by steps alone. Token ids from
  // `usable_vocab` on are never chosen.
  BlockDecoder(Session& session, const SetBlockOptions& options, const SamplerOptions& sampling,
               int usable_vocab);

  // Begins a block of at most `size` tokens after what there is.
  void begin(int64_t size);
  // Reads what the last block has come to, causally, and then the block, of which nothing stays.
  StepItem next_pass();
  // Decides places by what that pass said: in their order of certainty, valid until the next call.
  std::span<const Reveal> reveal();

  bool done() const { return masked_.empty(); }             // everything in the block is decided
  std::span<const Token> block() const { return tokens_; }  // with masks
  int64_t start() const { return start_; }                  // of it in the timeline
  int64_t known() const;  // so many of its first tokens are decided
  // Tokens that are decided, and not in the session yet: those of a block that is done.
  int64_t unread() const { return done() ? std::ssize(tokens_) : std::ssize(pending_); }
  int64_t passes() const { return passes_; }
  Token mask() const { return mask_; }

 private:
  Prediction predicted(int64_t place, std::span<const float> logits) const;

  Session& session_;
  SetBlockOptions options_;
  SamplerOptions sampling_;
  int usable_;
  Token mask_;
  std::vector<Token> pending_;          // the last block's tokens, until the session has them
  std::vector<Token> tokens_;           // of the block
  std::vector<Token> timeline_;         // that is decided: the session's, pending, and the block's
  std::vector<int64_t> masked_;         // places in the block, ascending
  std::vector<int64_t> rows_;           // of them, those that the pass is asked about
  std::vector<Prediction> prediction_;  // [block], of the masked places
  std::vector<Reveal> fresh_;
  bool first_pass_ = false;
  int64_t start_ = 0;
  int64_t passes_ = 0;
};

}  // namespace lapidary
