#include "lapidary/generate.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/fail.h"
#include "generate/decode.h"
#include "generate/stop_matcher.h"

namespace lapidary {

namespace {

double rate(int64_t count, double seconds) {
  return count > 0 && seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void check_options(const Session& session, std::span<const Token> prompt,
                   const GenerateOptions& options) {
  if (options.max_tokens < -1)
    fail_usage("max-tokens: {} given, expected -1 (until the end) or more", options.max_tokens);
  check_sampler_options(options.sampling, session.engine().config().vocab_size);
  check_decode_options(options.decode, session.engine());
  for (const std::string& stop : options.stop)
    if (stop.empty()) fail_usage("stop: a stop string is empty");
  if (!options.stop.empty()) session.engine().tokenizer();  // throws without one
  if (prompt.empty()) fail("the prompt is empty: there is nothing to go on from");
  const int64_t wanted = std::ssize(prompt) + std::max<int64_t>(options.max_tokens, 0);
  if (wanted > session.context())
    throw Error(ErrorKind::kInput,
                fmt::format("a prompt of {} tokens and {} to make do not fit the context of {}: {} "
                            "too many",
                            prompt.size(), std::max<int64_t>(options.max_tokens, 0),
                            session.context(), wanted - session.context()),
                "shorten the prompt, ask for fewer tokens or raise the context");
}

// From ids to the text of an answer, stop strings taken out.
class AnswerText {
 public:
  AnswerText(const Engine& engine, const std::vector<std::string>& stops,
             const std::function<void(std::string_view)>& on_text, std::string& text)
      : matcher_(stops), on_text_(on_text), text_(text) {
    if (engine.has_tokenizer()) decoder_.emplace(engine.tokenizer());
  }

  // False once the text has come to a stop string.
  bool put(Token id) {
    if (decoder_) emit(matcher_.put(decoder_->put(id)));
    return !matcher_.stopped();
  }
  // False when what was held back completes a stop string.
  bool finish() {
    if (decoder_) emit(matcher_.put(decoder_->finish()));
    emit(matcher_.finish());
    return !matcher_.stopped();
  }

 private:
  void emit(const std::string& piece) {
    if (piece.empty()) return;
    text_ += piece;
    if (on_text_) on_text_(piece);
  }

  std::optional<StreamDecoder> decoder_;
  StopMatcher matcher_;
  const std::function<void(std::string_view)>& on_text_;
  std::string& text_;
};

// Puts the tokens of an answer into `made`, until one ends it.
class Answer : public AnswerSink {
 public:
  Answer(const Engine& engine, const GenerateOptions& options, AnswerText& text,
         const Stopwatch& since_call, Generation& made)
      : ends_(options.ignore_eos ? std::vector<Token>{} : end_tokens(engine)),
        most_(options.max_tokens),
        text_(text),
        since_call_(since_call),
        made_(made) {}

  std::optional<FinishReason> put(Token id) override {
    made_.tokens.push_back(id);
    if (made_.tokens.size() == 1) made_.first_token_seconds = since_call_.seconds();
    if (std::ranges::find(ends_, id) != ends_.end()) return FinishReason::kStop;
    if (!text_.put(id)) return FinishReason::kStop;
    if (std::ssize(made_.tokens) == most_) return FinishReason::kLength;
    return std::nullopt;
  }

 private:
  std::vector<Token> ends_;
  int64_t most_;
  AnswerText& text_;
  const Stopwatch& since_call_;
  Generation& made_;
};

}  // namespace

double Generation::prefill_tokens_per_second() const {
  return rate(prompt_tokens - cached_tokens, prefill_seconds);
}

double Generation::decode_tokens_per_second() const {
  return rate(std::ssize(tokens) - 1, decode_seconds);
}

std::vector<Token> end_tokens(const Engine& engine) {
  std::vector<Token> ids = engine.generation_config().eos_token_id;
  if (engine.has_tokenizer()) {
    ids.push_back(engine.tokenizer().eos());
    if (const auto end = engine.tokenizer().end_of_turn()) ids.push_back(*end);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

Generation generate(Session& session, std::span<const Token> prompt, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& on_text, const Watch& watch) {
  check_options(session, prompt, options);
  const Stopwatch clock;
  Generation made;
  made.prompt_tokens = std::ssize(prompt);
  try {
    made.cached_tokens = made.prompt_tokens - session.sync(prompt, watch);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInterrupted) throw;
    made.finish_reason = FinishReason::kInterrupted;
    made.prefill_seconds = clock.seconds();
    return made;
  }
  made.prefill_seconds = clock.seconds();

  const Engine& engine = session.engine();
  const int vocab = engine.config().vocab_size;
  const int usable = engine.has_tokenizer() ? std::min(vocab, engine.tokenizer().size()) : vocab;
  AnswerText text(engine, options.stop, on_text, made.text);
  Answer answer(engine, options, text, clock, made);
  const auto decode =
      options.decode.mode == DecodeMode::kSetBlock ? decode_blocks : decode_in_order;
  if (options.max_tokens != 0)
    made.finish_reason = decode(session, options, usable, answer, watch.stop, made);
  if (!text.finish()) made.finish_reason = FinishReason::kStop;
  if (!made.tokens.empty()) made.decode_seconds = clock.seconds() - made.first_token_seconds;
  return made;
}

}  // namespace lapidary
