// Training on set blocks (arXiv 2509.04185): beside each document a copy of it, in which some
// tokens are masked, for the model to say what they were from what is before their block and known
// in it.
#pragma once

#include <cstdint>
#include <optional>

#include "lapidary/tokenizer.h"
#include "lapidary/train.h"

#include "gemma/set_block.h"
#include "train/batches.h"

namespace lapidary {

// What the options say of set blocks, for a model; nothing with another objective. Throws
// Error{kUsage} for blocks of other than 1 <= block_min <= block_max tokens, or of more than a
// sliding window, and for a mask_token that is no id of the vocabulary; Error{kInput} where the
// model's own attention looks ahead, and where there is no tokenizer that knows the mask_token.
std::optional<SetBlockTraining> set_blocks(const TrainOptions& options, const Config& config,
                                           const Tokenizer* tokenizer);

// The tokens of a block in a step, from 0: uniform from block_min to block_max.
int64_t block_of_step(const SetBlockTraining& blocks, uint64_t seed, int64_t step);

// The batch with each document's noisy copy after it. Of each document a probability eta is drawn,
// uniform in [0, 1), with which each of its tokens is masked. Tokens whose prediction does not
// count, <bos> and prompts, stay. All is drawn by the seed and the document's number, whatever the
// batch it is in. `block`: of the copies; 0: drawn for each document.
Batch with_noisy_copies(const Batch& batch, const SetBlockTraining& blocks, uint64_t seed,
                        int64_t block);

}  // namespace lapidary
