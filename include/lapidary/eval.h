// room: eval
// How well a model predicts a text, how far another is from it, and what both answer. Every figure
// is defined in docs/quality.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/generate.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

// ---- a text, read in windows

struct EvalText {
  std::vector<Token> tokens;      // without the <bos> that windows begin with
  std::optional<Token> bos = {};  // put before every window; unset: none, the first token is given
};
// The ids of `text`, by the engine's tokenizer, with its <bos>.
EvalText encode_text(const Engine& engine, std::string_view text);
// A few thousand tokens of several kinds: stories, science, instructions, dialogue, numbers, code.
std::string_view built_in_text();

// A window has `context` positions, its <bos> included, and starts `stride` tokens after the one
// before; what that one has not predicted is predicted in it. 0: half of the context.
struct WindowOptions {
  int64_t context = 512;
  int64_t stride = 0;
};

int64_t stride_of(const WindowOptions& options);

// A mean with its standard error, which takes into account that neighbours in a text are alike;
// unset for a single value.
struct Estimate {
  double value = 0;
  std::optional<double> error = {};
};

struct Perplexity {
  int64_t tokens = 0;     // of the text
  int64_t predicted = 0;  // of them, so far: each once
  int64_t evaluated = 0;  // that went through the model
  int64_t windows = 0;
  Estimate nll = {};  // mean of -ln p(token | those before in its window), nats
  Estimate ppl = {};  // e^nll
  double seconds = 0;
  bool interrupted = false;
  double tokens_per_second() const;  // evaluated
};

// Throws Error{kUsage} for windows that cannot be, Error{kInput} for a text that leaves nothing to
// predict, ids that are not in the vocabulary, and logits that are not finite. Keeps one row of
// logits. A stop request ends it with what is done, or with Error{kInterrupted} when nothing is.
Perplexity perplexity(const std::shared_ptr<const Engine>& engine, const EvalText& text,
                      const WindowOptions& options, const Watch& watch = {});

// ---- two models on one text

struct Comparison {
  int64_t tokens = 0;     // of the text
  int64_t predicted = 0;  // of them, so far
  Estimate kld = {};      // of B from A: mean over tokens of sum of p_A ln(p_A / p_B), nats
  double kld_median = 0, kld_p90 = 0, kld_p99 = 0, kld_max = 0;
  Estimate top1 = {};  // share of tokens where both hold the same id likeliest
  Estimate nll_a = {}, nll_b = {};
  Estimate ppl_a = {}, ppl_b = {};
  Estimate ppl_ratio = {};      // ppl_b / ppl_a
  double dp_top = 0;            // mean of |p_B - p_A| of the id that A holds likeliest
  double dp_mean = 0;           // mean of p_B - p_A of the text's token
  double dp_rms = 0;            // root of the mean of its square
  double logit_difference = 0;  // the largest, of any id at any token
  double seconds = 0;
  bool interrupted = false;
};

// Runs both through the same windows, a few tokens each in turn: at most 64 MiB of logits are kept.
// Throws as perplexity(), and Error{kInput} naming the difference when the vocabularies differ.
Comparison compare(const std::shared_ptr<const Engine>& a, const std::shared_ptr<const Engine>& b,
                   const EvalText& text, const WindowOptions& options, const Watch& watch = {});

// ---- a row per model

struct QualityRow {
  std::string model;       // its folder
  std::string format;      // "affine 4-bit, groups of 64"
  int64_t parameters = 0;  // of the matrices; norms are a few thousand
  int64_t bytes = 0;       // of the same
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  Estimate ppl = {};
  std::optional<Comparison> compared = {};  // with the first; unset for the first itself
  double bits_per_weight() const;
};

struct QualityOptions {
  EngineOptions engine = {};
  WindowOptions windows = {};
  int64_t prompt = 256;  // tokens of the speed tests, see SpeedBench
  int64_t gen = 32;
  int repetitions = 3;
};

// Rows one after another: each model is loaded, its speed measured, and what it predicts compared
// with what the first does, which stays loaded.
class QualityTable {
 public:
  // `text_of` makes the text from the first model. A stop request ends this and measure() with
  // Error{kInterrupted}.
  QualityTable(const std::filesystem::path& first,
               const std::function<EvalText(const Engine&)>& text_of, const QualityOptions& options,
               const Watch& watch = {});

  const QualityRow& first() const { return first_; }
  QualityRow measure(const std::filesystem::path& model, const Watch& watch = {}) const;

 private:
  QualityOptions options_;
  std::shared_ptr<const Engine> base_;
  EvalText text_;
  QualityRow first_;
};

// The table of all `models`. on_row gets each row as it is done. A stop request ends it with
// Error{kInterrupted} after the rows that are whole.
void quality_table(std::span<const std::filesystem::path> models,
                   const std::function<EvalText(const Engine&)>& text_of,
                   const QualityOptions& options,
                   const std::function<void(const QualityRow&)>& on_row, const Watch& watch = {});

// ---- two models on prompts

struct EvalPrompt {
  std::string id;
  std::string category;
  std::string text;
  std::string completion = {};  // the answer, where one is known
};
// Factual, reasoning, creative, code and explanation.
std::vector<EvalPrompt> built_in_prompts();
// A JSON object per line with "prompt" and, if wanted, "id", "category" and "completion"; `name`
// stands for the file in messages. Throws Error{kInput} naming the line and the field.
std::vector<EvalPrompt> parse_prompts(std::string_view jsonl, const std::string& name);

struct PromptOptions {
  int64_t max_tokens = 128;
  bool chat_format = true;
};

enum class Likeness { kIdentical, kSameStart, kDifferent };
inline constexpr size_t kSameStart = 16;  // bytes that answers must share to have the same start

struct PromptPair {
  EvalPrompt prompt;
  Generation a = {}, b = {};
  size_t common = 0;  // bytes at the beginning that both texts share, whole characters
  Likeness likeness = Likeness::kIdentical;
};

// A loaded model and what it has used so far.
struct PromptModel {
  std::shared_ptr<const Engine> engine;
  int64_t memory = 0;  // bytes by which the process grew while it was loaded and ran
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;
  int64_t decoded = 0;  // tokens after each answer's first
  double decode_seconds = 0;
  double prefill_tokens_per_second() const;
  double decode_tokens_per_second() const;
};
PromptModel load_prompt_model(const std::filesystem::path& folder, const EngineOptions& options);
// Whether the model says how chats are formatted, and has the tokens for it.
bool has_chat_format(const Engine& engine);

// Both answer each prompt in a session of its own, greedily. on_pair gets each pair; a stop request
// ends it with Error{kInterrupted} after those that are whole.
void compare_prompts(PromptModel& a, PromptModel& b, std::span<const EvalPrompt> prompts,
                     const PromptOptions& options,
                     const std::function<void(const PromptPair&)>& on_pair,
                     const Watch& watch = {});

}  // namespace lapidary
