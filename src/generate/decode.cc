#include "generate/decode.h"

#include <algorithm>
#include <utility>

#include "generate/drafts.h"

namespace lapidary {

namespace {

void count_pass(Generation& made, int64_t tokens) {
  ++made.forward_passes;
  const auto i = static_cast<size_t>(tokens);
  if (made.passes_by_tokens.size() <= i) made.passes_by_tokens.resize(i + 1);
  ++made.passes_by_tokens[i];
}

// Checks guesses: the model reads a token and those guessed after it in one pass, and each guess
// stands as long as it is the token that sampling gives at its place. A draw depends on seed and
// position alone, so that guessing changes no answer.
class Checker {
 public:
  Checker(Session& session, const SamplerOptions& sampling, int usable_vocab,
          std::unique_ptr<Drafter> drafter)
      : session_(session),
        sampling_(sampling),
        usable_(usable_vocab),
        drafter_(std::move(drafter)),
        timeline_(session.tokens().begin(), session.tokens().end()) {}

  Token first() const { return sample(sampling_, session_.logits(), timeline_, usable_); }

  // Appends `next` and, of at most `guesses`, those that hold. Returns these and the token after
  // them, which is drawn and not appended; valid until the next call. `left` tokens may yet be
  // made.
  std::span<const Token> pass(Token next, int64_t guesses, int64_t left) {
    timeline_.push_back(next);
    given_.assign(1, next);
    if (drafter_ && guesses > 0) {
      const auto proposed = drafter_->propose(timeline_, guesses);
      given_.insert(given_.end(), proposed.begin(), proposed.end());
    }
    certain_.clear();
    holds_ = true;
    const int64_t length = session_.length();
    StepItem item{.session = &session_,
                  .tokens = given_,
                  .on_token = [this](int64_t i, std::span<const float> logits) {
                    if (holds_) check(static_cast<size_t>(i), logits);
                  }};
    if (drafter_) drafter_->join(item, left - std::ssize(given_) + 1);
    session_.engine().step({&item, 1});
    session_.trim(length + std::ssize(certain_));
    return certain_;
  }

 private:
  void check(size_t i, std::span<const float> logits) {
    const Token token = sample(sampling_, logits, timeline_, usable_);
    certain_.push_back(token);
    holds_ = i + 1 < given_.size() && given_[i + 1] == token;
    if (holds_) timeline_.push_back(token);
  }

  Session& session_;
  const SamplerOptions& sampling_;
  int usable_;
  std::unique_ptr<Drafter> drafter_;
  std::vector<Token> timeline_;  // that the session has
  std::vector<Token> given_;     // to the pass: a token that is certain, and guesses
  std::vector<Token> certain_;   // what the pass says
  bool holds_ = true;            // whether all guesses so far do
};

// How many more tokens a pass may make; the session lacks `unread` of those made so far.
int64_t left(const Session& session, int64_t unread, const GenerateOptions& options,
             const Generation& made) {
  const int64_t room = session.context() - session.length() - unread;
  return options.max_tokens < 0 ? room
                                : std::min(room, options.max_tokens - std::ssize(made.tokens));
}

}  // namespace

FinishReason decode_in_order(Session& session, const GenerateOptions& options, int usable_vocab,
                             AnswerSink& sink, const std::stop_token& stop, Generation& made) {
  Checker checker(session, options.sampling, usable_vocab,
                  make_drafter(options.decode, session, options.sampling, usable_vocab));
  Token next = checker.first();
  auto reason = sink.put(next);
  while (!reason) {
    if (session.length() == session.context()) return FinishReason::kLength;
    if (stop.stop_requested()) return FinishReason::kInterrupted;
    const int64_t length = session.length() + 1;
    const int64_t more = left(session, 0, options, made);
    const auto certain =
        checker.pass(next, std::min(options.decode.guesses_at_once(), more - 1), more);
    count_pass(made, std::ssize(certain));
    for (size_t i = 0; i < certain.size() && !reason; ++i) {
      next = certain[i];
      reason = sink.put(next);
      if (reason) session.trim(length + static_cast<int64_t>(i));
    }
  }
  return *reason;
}

FinishReason decode_blocks(Session& session, const GenerateOptions& options, int usable_vocab,
                           AnswerSink& sink, const std::stop_token& stop, Generation& made) {
  BlockDecoder decoder(session, options.decode.set_block, options.sampling, usable_vocab);
  std::vector<Reveal> reveals;
  for (int64_t size = 0; (size = left(session, decoder.unread(), options, made)) > 0;) {
    decoder.begin(size);
    reveals.assign(decoder.block().size(), {});
    for (size_t put = 0; !decoder.done();) {
      if (stop.stop_requested()) return FinishReason::kInterrupted;
      const StepItem pass = decoder.next_pass();
      session.engine().step({&pass, 1});
      const auto fresh = decoder.reveal();
      count_pass(made, std::ssize(fresh));
      for (const Reveal& r : fresh) reveals[static_cast<size_t>(r.position - decoder.start())] = r;
      if (options.on_block)
        options.on_block(
            {decoder.start(), decoder.block(), decoder.mask(), decoder.passes(), fresh});
      while (std::cmp_less(put, decoder.known())) {
        made.reveals.push_back(reveals[put]);
        if (const auto reason = sink.put(decoder.block()[put++])) return *reason;
      }
    }
  }
  return FinishReason::kLength;
}

}  // namespace lapidary
