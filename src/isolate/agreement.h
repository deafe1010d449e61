// How far two ways of putting the same things into clusters agree. Labels are any numbers: what
// counts is which are equal. Both have a label for each thing.
#pragma once

#include <span>

namespace lapidary {

// 1 of the same clusters, about 0 of chance; may be negative. 1 without things.
double adjusted_rand_index(std::span<const int> a, std::span<const int> b);

// Mutual information over the mean of the entropies, 0 ... 1; 1 where both have one cluster.
double normalized_mutual_information(std::span<const int> a, std::span<const int> b);

}  // namespace lapidary
