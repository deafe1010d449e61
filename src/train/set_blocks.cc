#include "train/set_blocks.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/rng.h"

namespace lapidary {

namespace {

constexpr uint64_t kBlockStream = 0x626c6f636b;
constexpr uint64_t kNoiseSeed = 0x6e6f697365;
// What of a document's stream is drawn by which index.
constexpr uint64_t kEta = 0, kBlock = 1, kTokens = 2;

int64_t block_by(const SetBlockTraining& blocks, double uniform) {
  const int64_t sizes = blocks.block_max - blocks.block_min + 1;
  return blocks.block_min + static_cast<int64_t>(uniform * static_cast<double>(sizes));
}

Token named_token(const TrainOptions& o, const Config& c, const Tokenizer* tokenizer) {
  const std::string& name = o.mask_token;
  Token id = 0;
  if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos) {
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || id >= c.vocab_size)
      fail_usage("--mask-token: {} is no id of the model's, 0 to {}", name, c.vocab_size - 1);
    return id;
  }
  if (const auto found = tokenizer != nullptr ? tokenizer->find(name) : std::nullopt) return *found;
  throw Error(ErrorKind::kInput,
              fmt::format("{}: the tokenizer has no '{}' to stand for masked tokens",
                          o.model.string(), name),
              "--mask-token takes another piece, or the id of one that the data does not have");
}

// Data may leave these out, so that nothing else would refuse them: the model would unlearn where
// texts begin and end.
Token mask_token(const TrainOptions& o, const Config& c, const Tokenizer* tokenizer) {
  const Token id = named_token(o, c, tokenizer);
  if (tokenizer == nullptr) return id;
  bool own = id == tokenizer->bos() || id == tokenizer->eos();
  for (const char* piece : {"<pad>", "<start_of_turn>", "<end_of_turn>"})
    own = own || tokenizer->find(piece) == id;
  if (own)
    fail_usage("--mask-token: {} begins, ends or fills texts, and cannot stand for masked tokens",
               o.mask_token);
  return id;
}

// The noisy copy of `tokens`, which have `targets`.
void append_copy(std::span<const Token> tokens, std::span<const Token> targets, Token mask,
                 const CounterRng& rng, Batch& out) {
  const double eta = rng.uniform(kEta);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool counts = i > 0 && targets[i - 1] != kNoTarget;
    const bool masked = counts && rng.uniform(kTokens + i) < eta;
    out.tokens.push_back(masked ? mask : tokens[i]);
    out.targets.push_back(kNoTarget);
    out.masked.push_back(masked ? tokens[i] : kNoTarget);
  }
}

}  // namespace

std::optional<SetBlockTraining> set_blocks(const TrainOptions& o, const Config& c,
                                           const Tokenizer* tokenizer) {
  if (o.objective != TrainObjective::kSetBlock) return std::nullopt;
  if (o.block_min < 1) fail_usage("--block-min: {} is not positive", o.block_min);
  if (o.block_max < o.block_min)
    fail_usage("--block-max: {} is less than the {} of --block-min", o.block_max, o.block_min);
  for (int layer = 0; layer < c.num_hidden_layers; ++layer)
    if (c.is_sliding(layer) && o.block_max > c.sliding_window)
      fail_usage("--block-max: {} is more than the model's sliding window of {}", o.block_max,
                 c.sliding_window);
  if (c.use_bidirectional_attention)
    fail("{}: its attention looks ahead, and set blocks are of models that do not",
         o.model.string());
  return SetBlockTraining{mask_token(o, c, tokenizer), o.block_min, o.block_max};
}

int64_t block_of_step(const SetBlockTraining& blocks, uint64_t seed, int64_t step) {
  return block_by(blocks, CounterRng(seed, kBlockStream).uniform(static_cast<uint64_t>(step)));
}

Batch with_noisy_copies(const Batch& batch, const SetBlockTraining& blocks, uint64_t seed,
                        int64_t block) {
  Batch out;
  out.numbers = batch.numbers;
  size_t first = 0;
  for (size_t i = 0; i < batch.lengths.size(); ++i) {
    const auto length = static_cast<size_t>(batch.lengths[i]);
    const auto tokens = std::span(batch.tokens).subspan(first, length);
    const auto targets = std::span(batch.targets).subspan(first, length);
    const CounterRng rng(mix64(seed ^ kNoiseSeed), batch.numbers[i]);
    out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
    out.targets.insert(out.targets.end(), targets.begin(), targets.end());
    out.masked.insert(out.masked.end(), length, kNoTarget);
    append_copy(tokens, targets, blocks.mask_token_id, rng, out);
    out.lengths.push_back(2 * batch.lengths[i]);
    out.blocks.push_back(block > 0 ? block : block_by(blocks, rng.uniform(kBlock)));
    first += length;
  }
  return out;
}

}  // namespace lapidary
