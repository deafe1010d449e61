// The verbs: each adds itself to the command line.
#pragma once

#include "common.h"

namespace lapidary::cli {

void add_generate(Program& program);
void add_chat(Program& program);
void add_score(Program& program);
void add_perplexity(Program& program);
void add_compare(Program& program);
void add_tokenize(Program& program);
void add_detokenize(Program& program);
void add_show(Program& program);
void add_synth(Program& program);
void add_convert(Program& program);
void add_quantize(Program& program);
void add_train(Program& program);
void add_adapter(Program& program);
void add_fuse(Program& program);
void add_blend(Program& program);
void add_isolate(Program& program);
void add_study(Program& program);
void add_bench(Program& program);
void add_tune(Program& program);
void add_experiments(Program& program);
void add_pull(Program& program);
void add_list(Program& program);
void add_rm(Program& program);
void add_cache(Program& program);
void add_version(Program& program);
void add_completion(Program& program);
void add_help(Program& program);

}  // namespace lapidary::cli
