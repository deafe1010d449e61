// room: train
// What a model knows of single sequences by heart (Morris et al., arXiv 2505.24832).
#pragma once

#include <cstdint>
#include <span>

namespace lapidary {

// Bits of a sequence that a model has memorised beyond what a reference knows of it: its
// log-likelihood over the reference's, at least 0. Nats are sums of -ln p over predicted tokens.
double memorized_bits(double reference_nats, double model_nats);

// Whether greedy decoding after the first `prefix` tokens of a sequence, or after the first half of
// them for 0, gives all the others that count, of which there is one at least. `counted` and
// `likeliest` are [T]: 1 where a token counts, and where a model that has read the right ones
// before holds it the likeliest. Greedy decoding goes wrong at the first that it does not.
bool is_extracted(std::span<const uint8_t> counted, std::span<const uint8_t> likeliest,
                  int64_t prefix);

// How well a threshold on the loss tells the sequences that a model was trained on from others.
struct Membership {
  double auc = 0.5;      // chance that a member has the lower loss than another; ties count half
  double f1 = 0;         // of the threshold that tells best, below which a sequence is called one
  double threshold = 0;  // that
  double precision = 0, recall = 0;
};
// Of losses that are comparable, as nats per token. Neither side is empty.
Membership infer_membership(std::span<const double> members, std::span<const double> others);

// The F1 that the paper's law expects of as many members as others, by the entropy of the training
// data in bits over the model's parameters: (1 + 1.34 s(-0.034 (x - 33.14))) / 2, s the logistic
// function. As printed in the paper, with capacity over data in place of x, it contradicts the
// paper's own figures; with this x it agrees with them.
double expected_membership_f1(double bits_per_parameter);

}  // namespace lapidary
