// Whether isolation is what it is said to be, shown on the logits of a model.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

// A statement about logits at all positions of all contexts.
struct IsolationCheck {
  std::string statement;
  double difference = 0;  // the largest between two logits that it compares
  double least = 0;       // what it may be
  double most = 0;
  bool holds() const { return difference >= least && difference <= most; }
};

// Largest share of the largest logit by which mask isolation may be off from separate caches: they
// add up the same products in another order, and where activations, keys or values are rounded to
// fewer bits, that moves some by a whole step.
inline constexpr double kMaskToleranceExact = 1e-4;
inline constexpr double kMaskToleranceRounded = 0.05;

// Throws Error{kInput} naming what is too long for the model: a context, or the first two in one
// cache, which are read in the control.
void check_proof(const Engine& engine, std::span<const std::vector<Token>> contexts,
                 const std::string& example);

// `contexts`: ids of two or more clusters, as they would be read. Costs about eight readings of all
// of them, most a token at a time.
std::vector<IsolationCheck> prove_isolation(const std::shared_ptr<const Engine>& engine,
                                            std::span<const std::vector<Token>> contexts,
                                            const Watch& watch = {});

}  // namespace lapidary
