// What the model says of outputs that are there; nothing is sampled.
#pragma once

#include <memory>
#include <span>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/text_embedder.h"

#include "isolate/plan.h"
#include "isolate/run_folder.h"

namespace lapidary {

// Adds to the folder, for each output that it has, what is not there yet:
//   expected_nll  mean -ln p of the expected output's tokens after the output's own context and
//                 prompt, nats
//   leak_nats     of working clusters that hear nobody: by how many nats the other clusters' turns
//                 shorten the code of the whole output, from that after its own turns alone to that
//                 after all turns
//   similarity    cosine between output and expected output, as directions of the embedder; without
//                 one, of the model's own (Engine::embed) two thirds of the way up, without the
//                 mean of the conversation's turns
// expected_nll is left out with a warning where messages, which are cut into tokens anew, came to
// so many more tokens than were counted that the expected output has no room, and similarity where
// an output's own text did. Throws
// Error{kInterrupted}: what was measured is kept; and Error{kInput} for an output that is too long
// for the embedder.
void measure_with_model(const std::shared_ptr<const Engine>& engine,
                        std::span<const IsolationExample> examples,
                        std::span<const IsolationPlan> plans, const PlanOptions& options,
                        IsolationFolder& folder, TextEmbedder* embedder, const Watch& watch = {});

// Throws, before anything is made, Error{kInput} naming the first output and the measure of it that
// needs more positions than the model has.
void check_measures(const Engine& engine, std::span<const IsolationExample> examples,
                    std::span<const IsolationPlan> plans, const PlanOptions& options);

// Throws, before anything is made, Error{kUsage} when outputs of that many tokens may be too long
// for the embedder, and Error{kInput} when an expected output is.
void check_lengths(const TextEmbedder& embedder, std::span<const IsolationPlan> plans,
                   int64_t max_tokens);

}  // namespace lapidary
