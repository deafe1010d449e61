#include "isolate/model_measures.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "lapidary/log.h"

#include "base/fail.h"
#include "generate/logit_rows.h"
#include "isolate/contexts.h"
#include "isolate/find_clusters.h"

namespace lapidary {

namespace {

double nll(std::span<const float> logits, Token id) {
  return log_sum_exp(logits) - double{logits[static_cast<size_t>(id)]};
}

// What leak_nats compares: the clusters' own contexts, and that of all turns.
IsolationPlan leak_plan(const IsolationExample& example, const PlanOptions& o,
                        const Tokenizer& tokenizer) {
  const PlanOptions alone = {.conditions = {Condition::kSemantic, Condition::kSequential},
                             .text_fields = o.text_fields,
                             .topical = o.topical,
                             .questions = false,
                             .chat = o.chat};
  return make_plan(example, alone, tokenizer);
}

bool has_leak(const IsolationExample& example, const PlannedOutput& output) {
  return example.clusters[output.cluster].hears.empty();
}

std::vector<Token> expected_tokens(const Tokenizer& tokenizer, const PlannedOutput& output,
                                   bool chat) {
  return tokenizer.encode((chat ? "" : " ") + output.expected, ControlText::kLiteral);
}

class Measurer {
 public:
  Measurer(const std::shared_ptr<const Engine>& engine, const PlanOptions& options,
           IsolationFolder& folder, TextEmbedder* embedder, const Watch& watch)
      : engine_(engine), o_(options), folder_(folder), embedder_(embedder), watch_(watch) {}

  void measure(const IsolationExample& example, const IsolationPlan& plan) {
    const IsolationPlan both = leak_plan(example, o_, engine_->tokenizer());
    if (embedder_ == nullptr) mean_ = mean_of_turns(example);
    Contexts own = contexts(both.conditions[0], ""), all = contexts(both.conditions[1], "");
    for (const PlannedCondition& condition : plan.conditions) {
      Contexts read = contexts(condition, example.id);
      for (const PlannedOutput& output : condition.outputs) {
        watch_.throw_if_stopped();
        const RecordKey key = record_key(example.id, condition.condition, output.name);
        const OutputRecord* record = folder_.find(key);
        if (record == nullptr || folder_.measures().contains(key)) continue;
        MeasureRecord made{.example = example.id,
                           .condition = std::string(name_of(condition.condition)),
                           .name = output.name};
        if (!output.expected.empty()) {
          if (const auto nats = expected_nll(read, output))
            made.measures["expected_nll"] = *nats;
          else
            warn_left_out(key, "expected_nll",
                          "what it hears leaves no room for the expected output");
        }
        if (has_leak(example, output))
          made.measures["leak_nats"] = code_length(own, output.cluster, output, record->tokens) -
                                       code_length(all, 0, output, record->tokens);
        if (!output.expected.empty() && !record->text.empty() && !fits(record->text))
          warn_left_out(key, "similarity", "its text has more tokens than the model has positions");
        else if (!output.expected.empty() && !record->text.empty())
          made.measures["similarity"] = similarity(record->text, output.expected);
        folder_.add(std::move(made));
      }
    }
  }

 private:
  // Messages are what the example's outputs under that condition said; without an id there are
  // none.
  Contexts contexts(const PlannedCondition& condition, const std::string& id) {
    return {engine_,
            condition,
            o_.chat,
            [this, &condition, id](size_t i) -> std::string_view {
              const OutputRecord* heard =
                  folder_.find(record_key(id, condition.condition, condition.outputs[i].name));
              return heard == nullptr ? std::string_view() : heard->text;
            },
            held_,
            folder_.context_files()};
  }

  // Nothing where there is no room for it, which only messages can bring about.
  std::optional<double> expected_nll(Contexts& contexts, const PlannedOutput& output) {
    const Tokenizer& tokenizer = engine_->tokenizer();
    const std::vector<Token> ids = expected_tokens(tokenizer, output, o_.chat);
    const int64_t context = contexts.read(output.cache, Watch{{}, watch_.stop}).tokens,
                  prompt = std::ssize(prompt_tokens(tokenizer, output.prompt, o_.chat));
    if (context + prompt + std::ssize(ids) > engine_->config().max_position_embeddings)
      return std::nullopt;
    return code_length(contexts, output.cache, output, ids) / static_cast<double>(ids.size());
  }

  static void warn_left_out(const RecordKey& key, std::string_view measure, std::string_view why) {
    const auto& [example, condition, name] = key;
    log(LogLevel::kWarning, fmt::format("{}: {}, output {}: {} is left out, {}", example, condition,
                                        name, measure, why));
  }

  std::vector<float> embed(std::string_view text) const {
    return embed_by_layer(*engine_, default_layer(*engine_))(text);
  }

  std::vector<float> mean_of_turns(const IsolationExample& example) const {
    std::vector<std::vector<float>> turns;
    for (const IsolationTurn& turn : example.turns)
      if (const auto text = turn_text(turn, o_)) turns.push_back(embed(*text));
    return mean_of(turns);
  }

  // A text can come to more tokens than it was made of.
  bool fits(std::string_view text) const {
    return embedder_ != nullptr || std::ssize(context_tokens(engine_->tokenizer(), text, false)) <=
                                       engine_->config().max_position_embeddings;
  }

  double similarity(std::string_view output, std::string_view expected) const {
    std::vector<std::vector<float>> points;
    if (embedder_ != nullptr)
      points = {embedder_->embed(output), embedder_->embed(expected)};
    else
      points = centred(std::vector{embed(output), embed(expected)}, mean_);
    double cosine = 0;
    for (size_t i = 0; i < points[0].size(); ++i) cosine += double{points[0][i]} * points[1][i];
    return cosine;
  }

  // -ln p of the tokens after a context and the output's prompt.
  double code_length(Contexts& contexts, size_t cache, const PlannedOutput& output,
                     std::span<const Token> tokens) {
    const Watch watch{{}, watch_.stop};
    const Context& context = contexts.read(cache, watch);
    Session session = context.session->fork();
    const std::vector<Token> prompt = prompt_tokens(engine_->tokenizer(), output.prompt, o_.chat);
    const StepItem item{&session, prompt, context.label};
    engine_->step({&item, 1}, watch);
    double nats = nll(session.logits(), tokens[0]);
    session.score(
        tokens.first(tokens.size() - 1),
        [&](int64_t i, std::span<const float> logits) {
          nats += nll(logits, tokens[static_cast<size_t>(i) + 1]);
        },
        watch, context.label);
    return nats;
  }

  std::shared_ptr<const Engine> engine_;
  const PlanOptions& o_;
  IsolationFolder& folder_;
  TextEmbedder* embedder_;  // or nullptr
  const Watch& watch_;
  int64_t held_ = 0;
  std::vector<float> mean_;  // of the embeddings of the example's turns
};

// Of the contexts of a condition, each message counted as the most that it may be.
std::vector<int64_t> lengths(const Engine& engine, const PlannedCondition& condition,
                             const PlanOptions& o) {
  std::vector<int64_t> list;
  for (const PlannedCache& cache : condition.caches)
    list.push_back(count_tokens(engine.tokenizer(), condition, cache, o.chat, o.max_tokens));
  return list;
}

struct MeasureRoom {
  const Engine& engine;
  const std::string& example;
  Condition condition;
  const PlannedOutput& output;
  bool chat;

  // `what` is read for the measure: a context, the prompt, and as many tokens as `after`.
  void check(std::string_view measure, std::string_view what, int64_t context,
             int64_t after) const {
    const int64_t positions = engine.config().max_position_embeddings;
    const int64_t needed =
        context + std::ssize(prompt_tokens(engine.tokenizer(), output.prompt, chat)) + after;
    if (needed > positions)
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: {}, output {}: {} reads {}, which need {} positions, {} more "
                              "than the {} there are",
                              example, name_of(condition), output.name, measure, what, needed,
                              needed - positions, positions),
                  "shorten the example, ask for fewer tokens with -n, or take a model with a "
                  "longer context");
  }
};

}  // namespace

void measure_with_model(const std::shared_ptr<const Engine>& engine,
                        std::span<const IsolationExample> examples,
                        std::span<const IsolationPlan> plans, const PlanOptions& options,
                        IsolationFolder& folder, TextEmbedder* embedder, const Watch& watch) {
  folder.check_ids(engine->config().vocab_size);
  Measurer measurer(engine, options, folder, embedder, watch);
  for (size_t i = 0; i < plans.size(); ++i) {
    watch.report(static_cast<int64_t>(i), std::ssize(plans));
    measurer.measure(examples[i], plans[i]);
  }
  watch.report(std::ssize(plans), std::ssize(plans));
}

void check_measures(const Engine& engine, std::span<const IsolationExample> examples,
                    std::span<const IsolationPlan> plans, const PlanOptions& options) {
  for (size_t i = 0; i < plans.size(); ++i) {
    const IsolationPlan both = leak_plan(examples[i], options, engine.tokenizer());
    const std::vector<int64_t> own = lengths(engine, both.conditions[0], options),
                               all = lengths(engine, both.conditions[1], options);
    for (const PlannedCondition& condition : plans[i].conditions) {
      const std::vector<int64_t> contexts = lengths(engine, condition, options);
      for (const PlannedOutput& output : condition.outputs) {
        const MeasureRoom room{engine, plans[i].example, condition.condition, output, options.chat};
        if (!output.expected.empty())
          room.check("expected_nll", "context, prompt and expected output", contexts[output.cache],
                     std::ssize(expected_tokens(engine.tokenizer(), output, options.chat)));
        if (has_leak(examples[i], output))
          room.check("leak_nats", "all turns of the conversation, prompt and output",
                     std::max(all[0], own[output.cluster]), options.max_tokens);
      }
    }
  }
}

void check_lengths(const TextEmbedder& embedder, std::span<const IsolationPlan> plans,
                   int64_t max_tokens) {
  const int64_t most = embedder.max_tokens() - std::ssize(embedder.tokens(""));
  if (max_tokens > most)
    fail_usage("outputs of up to {} tokens: the model of similarity reads {} beside its prompt",
               max_tokens, most);
  for (const IsolationPlan& plan : plans)
    for (const PlannedCondition& condition : plan.conditions)
      for (const PlannedOutput& output : condition.outputs) embedder.tokens(output.expected);
}

}  // namespace lapidary
