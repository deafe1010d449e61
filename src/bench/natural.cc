#include "lapidary/bench.h"
#include "lapidary/chat.h"
#include "lapidary/generate.h"

namespace lapidary {

namespace {

struct Question {
  const char* name;
  const char* text;
};

// An answer of a few lines, of a paragraph, and of a page.
constexpr Question kQuestions[] = {
    {"short", "Write a haiku about the sea in winter."},
    {"medium", "Explain in one paragraph why the sky is blue."},
    {"long",
     "Write a recipe for vegetable lasagne, with a list of ingredients, numbered steps, and hints "
     "for preparing it the day before."},
};

}  // namespace

void measure_natural(const std::shared_ptr<const Engine>& engine, const SamplerOptions& sampling,
                     int64_t max_tokens, const std::function<void(const NaturalResult&)>& on_result,
                     const Watch& watch) {
  for (const Question& question : kQuestions) {
    const ChatMessage message{"user", question.text};
    const std::vector<Token> prompt = encode_chat(engine->tokenizer(), {&message, 1});
    Session session(engine, std::ssize(prompt) + max_tokens);
    const Generation made =
        generate(session, prompt, {.max_tokens = max_tokens, .sampling = sampling}, {}, watch);
    watch.throw_if_stopped();
    on_result({.name = question.name,
               .prompt = question.text,
               .prompt_tokens = made.prompt_tokens,
               .tokens = std::ssize(made.tokens),
               .ended = made.finish_reason == FinishReason::kStop,
               .prefill_tokens_per_second = made.prefill_tokens_per_second(),
               .decode_tokens_per_second = made.decode_tokens_per_second(),
               .first_token_seconds = made.first_token_seconds,
               .text = made.text});
  }
}

}  // namespace lapidary
