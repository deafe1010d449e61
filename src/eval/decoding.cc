#include <algorithm>

#include "lapidary/decoding_eval.h"

#include "base/fail.h"
#include "base/statistics.h"
#include "eval/prompts.h"
#include "generate/logit_rows.h"

namespace lapidary {

namespace {

// Sum over `answer` of -ln p of a token after `prompt` and those before it.
double answer_nats(const Session& prompt, std::span<const Token> answer) {
  Session session = prompt.fork();
  const auto nats = [&](std::span<const float> logits, size_t i) {
    return log_sum_exp(logits) - double{logits[static_cast<size_t>(answer[i])]};
  };
  double sum = nats(session.logits(), 0);
  session.score(answer.first(answer.size() - 1), [&](int64_t i, std::span<const float> logits) {
    sum += nats(logits, static_cast<size_t>(i) + 1);
  });
  return sum;
}

// An answer is the expected one when its text is, but for space around it.
bool has_text(const std::string& text, const std::string& expected) {
  const auto trimmed = [](const std::string& s) {
    const size_t first = s.find_first_not_of(" \t\r\n");
    return first == std::string::npos ? ""
                                      : s.substr(first, s.find_last_not_of(" \t\r\n") - first + 1);
  };
  return trimmed(text) == trimmed(expected);
}

// Means over the blocks that reach a place.
class FillingMeans {
 public:
  void add(std::span<const Reveal> reveals, int64_t block) {
    const auto size = static_cast<size_t>(block);
    if (count_.size() < size) {
      count_.resize(size);
      sums_.entropy.resize(size);
      sums_.pass.resize(size);
    }
    for (size_t begin = 0; begin < reveals.size(); begin += size) {
      const auto tokens = reveals.subspan(begin, std::min(size, reveals.size() - begin));
      const int64_t first = std::ranges::min(tokens, {}, &Reveal::pass).pass;
      for (size_t place = 0; place < tokens.size(); ++place) {
        ++count_[place];
        sums_.entropy[place] += tokens[place].entropy;
        sums_.pass[place] += static_cast<double>(tokens[place].pass - first + 1);
      }
    }
  }

  BlockFilling means() const {
    BlockFilling filling;
    for (size_t place = 0; place < count_.size() && count_[place] > 0; ++place) {
      const auto count = static_cast<double>(count_[place]);
      filling.entropy.push_back(sums_.entropy[place] / count);
      filling.pass.push_back(sums_.pass[place] / count);
    }
    return filling;
  }

 private:
  std::vector<int64_t> count_;
  BlockFilling sums_;
};

// A session may be made longer than what the model was trained for, where it says nothing useful.
void check_fit(const Engine& engine, std::span<const EvalPrompt> prompts,
               const DecodingOptions& options) {
  const int64_t context = engine.config().max_position_embeddings;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t length = std::ssize(prompt_ids(engine, prompts[i], options.chat_format));
    if (length + options.max_tokens > context)
      throw Error(ErrorKind::kInput,
                  fmt::format("prompt {}: its {} tokens and {} to make do not fit the context of "
                              "{}: {} too many",
                              i + 1, length, options.max_tokens, context,
                              length + options.max_tokens - context),
                  "shorten the prompt, or ask for fewer tokens with -n");
  }
}

// One prompt, answered in each way.
class Answers {
 public:
  Answers(const std::shared_ptr<const Engine>& engine, std::span<const EvalPrompt> prompts,
          std::span<const DecodeOptions> ways, const DecodingOptions& options)
      : engine_(engine), prompts_(prompts), options_(options) {
    for (const DecodeOptions& way : ways)
      results_.push_back({.decode = way, .prompts = std::ssize(prompts)});
    nats_.resize(ways.size());
    fillings_.resize(ways.size());
    right_.resize(ways.size());
  }

  void repeat(const Watch& watch) {
    for (DecodingResult& r : results_) r.seconds.push_back(0);
    for (const EvalPrompt& prompt : prompts_) {
      const std::vector<Token> ids = prompt_ids(*engine_, prompt, options_.chat_format);
      Session session(engine_, std::ssize(ids) + options_.max_tokens);
      session.append(ids, Watch{{}, watch.stop});
      std::vector<Token> ordinary;
      for (size_t way = 0; way < results_.size(); ++way) {
        const Generation made = answer(session, ids, results_[way].decode, watch);
        results_[way].seconds.back() += made.first_token_seconds + made.decode_seconds;
        if (results_[way].seconds.size() > 1) continue;
        if (way == 0) ordinary = made.tokens;
        take(way, prompt, session, made, ordinary);
      }
    }
  }

  std::vector<DecodingResult> finish() {
    for (size_t way = 0; way < results_.size(); ++way) {
      DecodingResult& r = results_[way];
      r.nll = r.tokens > 0 ? nats_[way] / static_cast<double>(r.tokens) : 0;
      r.filling = fillings_[way].means();
      if (expected_ > 0)
        r.accuracy = static_cast<double>(right_[way]) / static_cast<double>(expected_);
    }
    return std::move(results_);
  }

 private:
  Generation answer(const Session& prompt, std::span<const Token> ids, const DecodeOptions& decode,
                    const Watch& watch) const {
    Session session = prompt.fork();
    const GenerateOptions options{
        .max_tokens = options_.max_tokens, .sampling = options_.sampling, .decode = decode};
    Generation made = generate(session, ids, options, {}, Watch{{}, watch.stop});
    watch.throw_if_stopped();
    watch.report(++answered_, std::ssize(results_) * std::ssize(prompts_) * options_.repetitions);
    return made;
  }

  void take(size_t way, const EvalPrompt& prompt, const Session& session, const Generation& made,
            const std::vector<Token>& ordinary) {
    DecodingResult& r = results_[way];
    r.tokens += std::ssize(made.tokens);
    r.forward_passes += made.forward_passes;
    r.identical += made.tokens == ordinary;
    nats_[way] += answer_nats(session, made.tokens);
    if (r.decode.mode == DecodeMode::kSetBlock)
      fillings_[way].add(made.reveals, r.decode.set_block.block);
    r.texts.push_back(made.text);
    if (prompt.completion.empty()) return;
    if (way == 0) ++expected_;
    right_[way] += has_text(made.text, prompt.completion);
  }

  std::shared_ptr<const Engine> engine_;
  std::span<const EvalPrompt> prompts_;
  const DecodingOptions& options_;
  std::vector<DecodingResult> results_;
  std::vector<double> nats_;
  std::vector<FillingMeans> fillings_;
  std::vector<int64_t> right_;
  int64_t expected_ = 0;  // prompts whose answer is known
  mutable int64_t answered_ = 0;
};

}  // namespace

double DecodingResult::tokens_per_second() const {
  const double middle = median(seconds);
  return middle > 0 ? static_cast<double>(tokens) / middle : 0;
}

double DecodingResult::tokens_per_pass() const {
  return forward_passes > 0 ? static_cast<double>(tokens) / static_cast<double>(forward_passes) : 0;
}

std::string name_of(const DecodeOptions& d) {
  switch (d.mode) {
    case DecodeMode::kPlain:
      break;
    case DecodeMode::kNgram:
    case DecodeMode::kDraft:
      return fmt::format("{}, {} at once", name_of(d.mode), d.draft_max);
    case DecodeMode::kBlockDraft:
      return fmt::format("{} {}", name_of(d.mode), d.set_block.block);
    case DecodeMode::kSetBlock:
      return fmt::format("{} {}, gamma {}{}", name_of(d.mode), d.set_block.block, d.set_block.gamma,
                         d.set_block.order == RevealOrder::kEntropy
                             ? ""
                             : fmt::format(", by {}", name_of(d.set_block.order)));
  }
  return std::string(name_of(d.mode));
}

std::vector<DecodingResult> measure_decoding(const std::shared_ptr<const Engine>& engine,
                                             std::span<const EvalPrompt> prompts,
                                             std::span<const DecodeOptions> ways,
                                             const DecodingOptions& options, const Watch& watch) {
  if (options.max_tokens < 1)
    fail_usage("max-tokens: {} given, expected 1 or more", options.max_tokens);
  if (options.repetitions < 1) fail_usage("-r: {} given, expected 1 or more", options.repetitions);
  LAPIDARY_CHECK(!ways.empty() && ways.front().mode == DecodeMode::kPlain,
                 "the others are compared with ordinary decoding");
  for (const DecodeOptions& way : ways) check_decode_options(way, *engine);
  check_fit(*engine, prompts, options);
  Answers answers(engine, prompts, ways, options);
  for (int i = 0; i < options.repetitions; ++i) answers.repeat(watch);
  return answers.finish();
}

}  // namespace lapidary
