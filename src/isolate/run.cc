#include "isolate/run.h"

#include <algorithm>
#include <list>
#include <vector>

#include <fmt/format.h>

#include "lapidary/generate.h"
#include "lapidary/log.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/system.h"
#include "base/text_hash.h"
#include "isolate/contexts.h"

namespace lapidary {

namespace {

// A condition of an example on its way.
struct Work {
  const IsolationExample* example;
  const PlannedCondition* plan;
  Contexts contexts;
  std::vector<bool> begun = {};  // of its outputs

  std::string condition() const { return std::string(name_of(plan->condition)); }
  RecordKey key(const PlannedOutput& output) const {
    return record_key(example->id, plan->condition, output.name);
  }
  RecordKey key(const PlannedCache& cache) const {
    return record_key(example->id, plan->condition, cache.name);
  }
};

// An output on its way.
struct Active {
  OutputRecord record;
  std::vector<Token> prompt;
  int64_t most;  // tokens
  Session session;
  int label;
  std::shared_ptr<Hold> context;
  Hold own;

  Active(OutputRecord r, std::vector<Token> p, int64_t most_tokens, const Context& from,
         int64_t& held, int64_t bytes)
      : record(std::move(r)),
        prompt(std::move(p)),
        most(most_tokens),
        session(from.session->fork()),
        label(from.label),
        context(from.hold),
        own(held, bytes) {}
};

class Runner {
 public:
  Runner(const std::shared_ptr<const Engine>& engine, std::span<const IsolationExample> examples,
         std::span<const IsolationPlan> plans, const IsolationRunOptions& options,
         IsolationFolder& folder, const Watch& watch)
      : engine_(engine),
        tokenizer_(engine->tokenizer()),
        o_(options),
        folder_(folder),
        watch_(watch),
        before_(folder.seconds()),
        ends_(options.ignore_eos ? std::vector<Token>{} : end_tokens(*engine)),
        budget_(options.max_memory > 0 ? options.max_memory : available_memory_bytes() / 2) {
    for (size_t i = 0; i < plans.size(); ++i)
      for (const PlannedCondition& condition : plans[i].conditions) add(examples[i], condition);
  }

  void run() {
    watch_.report(done_, total_);
    while (done_ < total_) {
      watch_.throw_if_stopped();
      admit();
      decode();
    }
  }

 private:
  void add(const IsolationExample& example, const PlannedCondition& condition) {
    const auto message = [this, &example, &condition](size_t i) {
      const RecordKey key = record_key(example.id, condition.condition, condition.outputs[i].name);
      return std::string_view(folder_.find(key)->text);
    };
    Work work{.example = &example,
              .plan = &condition,
              .contexts = Contexts(engine_, condition, o_.plan.chat, message, held_,
                                   folder_.context_files())};
    for (const PlannedOutput& output : condition.outputs) {
      const bool made = folder_.find(work.key(output)) != nullptr;
      work.begun.push_back(made);
      ++total_;
      done_ += made ? 1 : 0;
    }
    work_.push_back(std::move(work));
  }

  double now() const { return before_ + clock_.seconds(); }
  int64_t parallel() const { return o_.one_at_a_time ? 1 : o_.parallel; }

  // Begins outputs, in order, as far as there is room; one always.
  void admit() {
    std::vector<Active*> fresh;
    for (Work& work : work_)
      for (size_t i = 0; i < work.begun.size(); ++i) {
        if (std::ssize(active_) >= parallel()) break;
        if (work.begun[i] || !heard(work, work.plan->outputs[i].cache)) continue;
        const PlannedOutput& output = work.plan->outputs[i];
        std::vector<Token> prompt = prompt_tokens(tokenizer_, output.prompt, o_.plan.chat);
        if (!active_.empty() && !fits(work, output.cache, prompt)) return read_prompts(fresh);
        work.begun[i] = true;
        fresh.push_back(&begin(work, output, std::move(prompt)));
        forget_context(work, work.plan->outputs[i].cache);
      }
    read_prompts(fresh);
  }

  // Whether the outputs that the cache begins with are there.
  bool heard(const Work& work, size_t cache) const {
    return std::ranges::all_of(work.plan->caches[cache].messages, [&](size_t i) {
      return folder_.find(work.key(work.plan->outputs[i])) != nullptr;
    });
  }

  int64_t answer_bytes(std::span<const Token> prompt) const {
    return engine_->forecast(std::ssize(prompt) + o_.plan.max_tokens).kv_cache;
  }

  bool fits(const Work& work, size_t cache, std::span<const Token> prompt) const {
    int64_t more = answer_bytes(prompt);
    if (!work.contexts.has(cache)) {
      const int64_t tokens = count_tokens(tokenizer_, *work.plan, work.plan->caches[cache],
                                          o_.plan.chat, o_.plan.max_tokens);
      more += engine_->forecast(tokens).kv_cache;
    }
    return held_ + more <= budget_;
  }

  const Context& context(Work& work, size_t cache) {
    return work.contexts.read(
        cache, Watch{{}, watch_.stop}, [&](size_t i, const Context& read, double seconds) {
          const RecordKey key = work.key(work.plan->caches[i]);
          const auto before = folder_.contexts().find(key);
          const bool again = before != folder_.contexts().end();
          const int64_t prefilled = again ? before->second.prefilled : 0,
                        restored = again ? before->second.restored : 0;
          folder_.add(ContextRecord{.example = work.example->id,
                                    .condition = work.condition(),
                                    .name = work.plan->caches[i].name,
                                    .tokens = read.tokens,
                                    .prefilled = prefilled + read.prefilled,
                                    .restored = restored + read.tokens - read.prefilled,
                                    .bytes = read.bytes,
                                    .begin = now() - seconds,
                                    .end = now()});
        });
  }

  Active& begin(Work& work, const PlannedOutput& output, std::vector<Token> prompt) {
    const bool there = work.contexts.has(output.cache);
    const int64_t most = room(work, output, prompt);
    const Context& from = context(work, output.cache);
    const std::string& id = work.example->id;
    const int64_t bytes = answer_bytes(prompt);
    active_.emplace_back(OutputRecord{.example = id,
                                      .condition = work.condition(),
                                      .name = output.name,
                                      .cluster = work.example->clusters[output.cluster].name,
                                      .context = work.plan->caches[output.cache].name,
                                      .seed = output_seed(o_.plan.seed, id, output.name),
                                      .prompt_tokens = std::ssize(prompt),
                                      .reused_tokens = there ? from.tokens : 0,
                                      .begin = now()},
                         std::move(prompt), most, from, held_, bytes);
    return active_.back();
  }

  // How many tokens of an output there is room for. Messages were counted as the most tokens that
  // an output may have; their text can come to more, since it is cut into tokens anew.
  int64_t room(const Work& work, const PlannedOutput& output, std::span<const Token> prompt) const {
    if (work.plan->caches[output.cache].messages.empty()) return o_.plan.max_tokens;
    const int64_t context = engine_->config().max_position_embeddings;
    const int64_t left = context - work.contexts.count_tokens(output.cache) - std::ssize(prompt);
    const std::string name =
        fmt::format("{}: {}, output {}", work.example->id, work.condition(), output.name);
    if (left < 1)
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: the outputs that it hears came to more tokens than were counted "
                              "for them, and leave no room in the {} there are",
                              name, context),
                  "what was made is kept; begin again in another folder with fewer tokens (-n)");
    if (left < o_.plan.max_tokens)
      log(LogLevel::kWarning,
          fmt::format("{}: the outputs that it hears came to more tokens than were counted for "
                      "them; it has {} at most, not {}",
                      name, left, o_.plan.max_tokens));
    return std::min(left, o_.plan.max_tokens);
  }

  // A context goes when nothing will go on from it any more; its outputs keep what they share.
  void forget_context(Work& work, size_t cache) {
    const std::vector<PlannedOutput>& outputs = work.plan->outputs;
    bool needed = false, all = true;
    for (size_t i = 0; i < outputs.size(); ++i) {
      needed = needed || (outputs[i].cache == cache && !work.begun[i]);
      all = all && work.begun[i];
    }
    if (all || o_.one_at_a_time)
      work.contexts.forget_all();
    else if (!needed)
      work.contexts.forget(cache);
  }

  void read_prompts(const std::vector<Active*>& fresh) {
    std::vector<StepItem> items;
    for (Active* a : fresh) items.push_back({&a->session, a->prompt, a->label});
    step(items);
  }

  // One token of each.
  void decode() {
    std::vector<StepItem> items;
    for (auto a = active_.begin(); a != active_.end();) {
      const bool ended = draw(*a);
      if (ended) finish(*a);
      if (!ended) items.push_back({&a->session, {&a->record.tokens.back(), 1}, a->label});
      a = ended ? active_.erase(a) : std::next(a);
    }
    step(items);
  }

  void step(std::span<const StepItem> items) {
    if (items.empty()) return;
    const Stopwatch clock;
    engine_->step(items, Watch{{}, watch_.stop});
    int64_t rows = 0;
    for (const StepItem& item : items) rows += std::ssize(item.tokens);
    for (Active& a : active_)
      for (const StepItem& item : items)
        if (item.session == &a.session)
          a.record.seconds +=
              clock.seconds() * static_cast<double>(item.tokens.size()) / static_cast<double>(rows);
  }

  // Whether that was its last.
  bool draw(Active& a) const {
    SamplerOptions sampling = o_.sampling;
    sampling.seed = a.record.seed;
    const int vocab = std::min(engine_->config().vocab_size, tokenizer_.size());
    // By its place in the output alone: the same chance under every condition.
    const Token id = sample(sampling, a.session.logits(), a.record.tokens, vocab);
    a.record.tokens.push_back(id);
    const bool stop = std::ranges::find(ends_, id) != ends_.end();
    if (stop) a.record.finish_reason = "stop";
    if (!stop && std::ssize(a.record.tokens) == a.most) a.record.finish_reason = "length";
    return !a.record.finish_reason.empty();
  }

  void finish(Active& a) {
    a.record.text = tokenizer_.decode(a.record.tokens);
    a.record.end = now();
    folder_.add(a.record);
    watch_.report(++done_, total_);
  }

  std::shared_ptr<const Engine> engine_;
  const Tokenizer& tokenizer_;
  const IsolationRunOptions& o_;
  IsolationFolder& folder_;
  const Watch& watch_;
  Stopwatch clock_;
  double before_;  // seconds of earlier sittings
  std::vector<Token> ends_;
  int64_t budget_;
  int64_t held_ = 0;  // bytes of keys and values; outlives those who count in it
  std::vector<Work> work_;
  std::list<Active> active_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

uint64_t output_seed(uint64_t seed, const std::string& example, const std::string& output) {
  return hash_text(mix64(seed), example + "\n" + output + "\n");
}

void check_run(const Engine& engine, std::span<const IsolationPlan> plans,
               const IsolationRunOptions& options) {
  check_sampler_options(options.sampling, engine.config().vocab_size);
  for (const IsolationPlan& plan : plans)
    check_plan(plan, options.plan, engine.tokenizer(), engine.config().max_position_embeddings);
}

void run_isolation(const std::shared_ptr<const Engine>& engine,
                   std::span<const IsolationExample> examples, std::span<const IsolationPlan> plans,
                   const IsolationRunOptions& options, IsolationFolder& folder,
                   const Watch& watch) {
  LAPIDARY_CHECK(examples.size() == plans.size(), "a plan for each example");
  check_run(*engine, plans, options);
  folder.check_ids(engine->config().vocab_size);
  if (options.keep_contexts) folder.keep_context_files();
  Runner(engine, examples, plans, options, folder, watch).run();
}

}  // namespace lapidary
