#include "eval/prompts.h"

#include <algorithm>

#include "lapidary/chat.h"
#include "lapidary/eval.h"

#include "base/fail.h"
#include "base/json.h"
#include "base/system.h"
#include "eval/assets.h"
#include "generate/chat_template.h"

namespace lapidary {

namespace {

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// Bytes that both begin with, cut back to where a character of both begins.
size_t common_beginning(std::string_view a, std::string_view b) {
  auto same =
      static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  const auto within = [](std::string_view text, size_t i) {
    return i < text.size() && (text[i] & 0xc0) == 0x80;
  };
  while (same > 0 && (within(a, same) || within(b, same))) --same;
  return same;
}

Likeness likeness_of(const PromptPair& pair) {
  if (pair.a.text == pair.b.text && pair.a.tokens == pair.b.tokens) return Likeness::kIdentical;
  return pair.common >= kSameStart ? Likeness::kSameStart : Likeness::kDifferent;
}

Generation answer(PromptModel& model, const EvalPrompt& prompt, const PromptOptions& options,
                  const Watch& watch) {
  const int64_t before = rss_bytes();
  const std::vector<Token> ids = prompt_ids(*model.engine, prompt, options.chat_format);
  Session session(model.engine, std::ssize(ids) + options.max_tokens);
  GenerateOptions greedy{.max_tokens = options.max_tokens};
  greedy.sampling.temperature = 0;
  Generation made = generate(session, ids, greedy, {}, Watch{{}, watch.stop});
  watch.throw_if_stopped();
  model.prompt_tokens += made.prompt_tokens;
  model.prefill_seconds += made.prefill_seconds;
  model.decoded += std::ssize(made.tokens) - 1;
  model.decode_seconds += made.decode_seconds;
  model.memory += rss_bytes() - before;
  return made;
}

}  // namespace

std::vector<Token> prompt_ids(const Engine& engine, const EvalPrompt& prompt, bool chat_format) {
  const Tokenizer& tokenizer = engine.tokenizer();
  if (chat_format) {
    const ChatMessage message{"user", prompt.text};
    return encode_chat(tokenizer, {&message, 1});
  }
  std::vector<Token> ids = tokenizer.encode(prompt.text);
  ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

double PromptModel::prefill_tokens_per_second() const {
  return rate(prompt_tokens, prefill_seconds);
}
double PromptModel::decode_tokens_per_second() const {
  return rate(decoded, decode_seconds);
}

PromptModel load_prompt_model(const std::filesystem::path& folder, const EngineOptions& options) {
  const int64_t before = rss_bytes();
  PromptModel model{Engine::load(folder, options)};
  model.engine->tokenizer();  // throws without one
  model.memory = rss_bytes() - before;
  return model;
}

bool has_chat_format(const Engine& engine) {
  return engine.has_tokenizer() && engine.tokenizer().end_of_turn() &&
         !chat_template(engine.folder()).empty();
}

std::vector<EvalPrompt> built_in_prompts() {
  return parse_prompts(assets::kPrompts, "the built-in prompts");
}

std::vector<EvalPrompt> parse_prompts(std::string_view jsonl, const std::string& name) {
  std::vector<EvalPrompt> prompts;
  int64_t number = 0;
  for (size_t begin = 0; begin < jsonl.size();) {
    const size_t end = std::min(jsonl.find('\n', begin), jsonl.size());
    const std::string_view line = jsonl.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", name, number);
    const Json json = parse_json(line, where);
    if (!json.is_object()) fail("{}: {} found, expected an object", where, shown_json(json));
    const JsonObject object(json, where);
    EvalPrompt prompt{.id = object.string("id", std::to_string(prompts.size() + 1)),
                      .category = object.string("category", ""),
                      .text = object.string("prompt"),
                      .completion = object.string("completion", "")};
    if (prompt.text.empty()) object.fail_field("prompt", "is empty");
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) fail("{}: no prompts in it", name);
  return prompts;
}

void compare_prompts(PromptModel& a, PromptModel& b, std::span<const EvalPrompt> prompts,
                     const PromptOptions& options,
                     const std::function<void(const PromptPair&)>& on_pair, const Watch& watch) {
  if (options.max_tokens < 1)
    fail_usage("max-tokens: {} given, expected 1 or more", options.max_tokens);
  int64_t answers = 0;
  for (const EvalPrompt& prompt : prompts) {
    PromptPair pair{.prompt = prompt};
    for (auto& [model, made] : {std::pair<PromptModel*, Generation*>{&a, &pair.a}, {&b, &pair.b}}) {
      *made = answer(*model, prompt, options, watch);
      watch.report(++answers, 2 * std::ssize(prompts));
    }
    pair.common = common_beginning(pair.a.text, pair.b.text);
    pair.likeness = likeness_of(pair);
    on_pair(pair);
  }
}

}  // namespace lapidary
