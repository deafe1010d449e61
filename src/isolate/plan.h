// What each condition of the experiment reads and is asked: contexts, prompts, and who waits for
// whose output. docs/isolation.md has the definitions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/tokenizer.h"

#include "isolate/example.h"

namespace lapidary {

enum class Condition {
  kSequential,      // one cache of all turns
  kPrompted,        // the same, told to keep the topics apart
  kTurnBased,       // the same, each turn marked
  kSemantic,        // a cache per cluster, the others' outputs as messages
  kRandomClusters,  // as semantic, turns dealt to clusters at random: is it the topics, or the
                    // length?
  kLengthMatched,   // as sequential, turns cut until it is as long as a cluster's cache
  kMessageOnly,     // as sequential, with semantic's messages: is it the messages?
  kMask,            // as semantic, in one cache whose clusters do not see each other
};
inline constexpr std::array kConditions = {Condition::kSequential,     Condition::kPrompted,
                                           Condition::kTurnBased,      Condition::kSemantic,
                                           Condition::kRandomClusters, Condition::kLengthMatched,
                                           Condition::kMessageOnly,    Condition::kMask};
std::string_view name_of(Condition condition);     // "turn_based"
Condition condition_named(std::string_view name);  // throws Error{kUsage}

struct PlanOptions {
  std::vector<Condition> conditions = {Condition::kSequential, Condition::kPrompted,
                                       Condition::kTurnBased, Condition::kSemantic};
  std::vector<std::string> text_fields = {"instruction", "content"};  // the first that a turn has
  std::string topics = {};   // of the prompted condition, before those of the file
  bool topical = false;      // prompts that name the clusters' focus instead of outputs A, B, C
  bool questions = true;     // ask the files' questions too
  bool chat = false;         // Gemma's chat format around context and prompt
  int64_t max_tokens = 300;  // of an output
  uint64_t seed = 42;        // deals the random clusters
};

// A stretch of a context that one turn wrote.
struct ContextPiece {
  std::string text;
  size_t turn;  // index in the example's turns
};

struct PlannedCache {
  std::string name;  // "all", or the cluster's
  std::vector<ContextPiece> pieces = {};
  std::vector<size_t> messages = {};  // outputs it waits for and begins with
};

inline constexpr std::string_view kBlankLine = "\n\n";

struct PlannedOutput {
  std::string name;  // "A", or of a question "A.q1"
  size_t cluster = 0;
  size_t cache = 0;
  std::string prompt;         // begins with a blank line
  std::string expected = {};  // empty where the file has none
  bool question = false;
};

struct PlannedCondition {
  Condition condition = Condition::kSequential;
  std::vector<PlannedCache> caches = {};
  std::vector<PlannedOutput> outputs = {};
};

struct IsolationPlan {
  std::string example;  // its id
  std::vector<PlannedCondition> conditions = {};
  std::vector<std::string> warnings = {};
};

// The first of the fields that the turn has.
std::optional<std::string> turn_text(const IsolationTurn& turn, const PlanOptions& options);

// Of all turns, empty where one has none; `warnings` grows by a line for each of those. Throws
// Error{kInput} when a cluster has no text at all.
std::vector<std::string> texts_of_turns(const IsolationExample& example, const PlanOptions& options,
                                        std::vector<std::string>& warnings);

// Throws as texts_of_turns. The tokenizer measures what the
// length-matched condition is cut to. `found`: labels of the turns, 0 .. and -1 for those of
// synthesis clusters and without text, to be used by semantic and mask instead of the file's
// clusters; an output then goes on from the cache that has most of its cluster's turns.
IsolationPlan make_plan(const IsolationExample& example, const PlanOptions& options,
                        const Tokenizer& tokenizer, std::span<const int> found = {});

// The text of a cache whose messages are `outputs` (a text for each of the condition's outputs):
//   \nOutput A: {A}\n\nOutput B: {B}\n\n{turn}\n\n{turn}...
std::string context_text(const PlannedCondition& condition, const PlannedCache& cache,
                         const std::function<std::string_view(size_t output)>& outputs);

// Ids of a context, <bos> first, and of what is asked after it.
std::vector<Token> context_tokens(const Tokenizer& tokenizer, std::string_view text, bool chat);
std::vector<Token> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt, bool chat);

// Of a cache; `messages` is what is counted for each message it waits for.
int64_t count_tokens(const Tokenizer& tokenizer, const PlannedCondition& condition,
                     const PlannedCache& cache, bool chat, int64_t messages = 0);

// An output whose context, prompt and answer need more positions than there are.
struct Misfit {
  Condition condition;
  std::string output;
  int64_t needed;
};
std::vector<Misfit> misfits(const IsolationPlan& plan, const PlanOptions& options,
                            const Tokenizer& tokenizer, int64_t context);
// Throws Error{kInput} naming the first output whose context, prompt and answer need more than
// `context` positions, by how many.
void check_plan(const IsolationPlan& plan, const PlanOptions& options, const Tokenizer& tokenizer,
                int64_t context);

}  // namespace lapidary
