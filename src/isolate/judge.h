// Asks another model which of two conditions' answers is better. It sees the prompt, what is
// expected and two answers, each pair in both orders, and never what made them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lapidary/progress.h"

#include "isolate/chat_endpoint.h"
#include "isolate/judgements.h"

namespace lapidary {

// What is asked of one pair of answers.
std::vector<ChatMessage> judge_messages(const IsolationExample& example,
                                        const PlannedOutput& output, const std::string& first,
                                        const std::string& second);

// The verdict in an answer and its reason: of the last JSON object that has one, whatever stands
// around it. Nothing where there is none.
std::optional<std::pair<JudgementRecord::Verdict, std::string>> parse_verdict(
    const std::string& answer);

// Judges what the folder has no judgement of yet, and adds each to it as it comes. `watch` counts
// judgements. Returns how many were made. Throws as ChatEndpoint::ask and IsolationFolder::add.
int64_t judge_outputs(ChatEndpoint& endpoint, const std::string& model,
                      std::span<const IsolationExample> examples, std::span<const OutputPair> pairs,
                      IsolationFolder& folder, const Watch& watch = {});

}  // namespace lapidary
