#include "train/check_options.h"

#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "base/fail.h"

namespace lapidary {

namespace {

void check_run(const TrainOptions& o) {
  if (o.run.empty()) fail_usage("--output: is empty");
  if (o.iterations < 1) fail_usage("--iters: {} is not positive", o.iterations);
  if (o.batch_size < 1) fail_usage("--batch-size: {} is not positive", o.batch_size);
  if (o.micro_batch < 0 || (o.micro_batch > 0 && o.batch_size % o.micro_batch != 0))
    fail_usage("--micro-batch: {} does not divide the batch size {}", o.micro_batch, o.batch_size);
  if (o.save_every < 0) fail_usage("--save-every: {} is negative", o.save_every);
  if (o.eval_every < 0) fail_usage("--eval-every: {} is negative", o.eval_every);
  if (o.threads < 0) fail_usage("--threads: {} is negative", o.threads);
  if (o.checkpoint_layers < -1)
    fail_usage("--checkpoint-layers: {} is negative", o.checkpoint_layers);
  if (o.max_memory < 0) fail_usage("--max-memory: {} is negative", o.max_memory);
  if (o.rank_every < 0) fail_usage("--rank-every: {} is negative", o.rank_every);
  if (o.track_memorization < 0)
    fail_usage("--track-memorization: {} is negative", o.track_memorization);
  if (!(o.max_grad_norm >= 0 && std::isfinite(o.max_grad_norm)))
    fail_usage("--max-grad-norm: {} given, expected 0 or more", o.max_grad_norm);
  const TrainOptions open;
  if (o.objective != TrainObjective::kSetBlock &&
      (o.mask_token != open.mask_token || o.block_min != open.block_min ||
       o.block_max != open.block_max))
    fail_usage("--mask-token, --block-min, --block-max: are of --objective sbd");
  if (o.method != TrainMethod::kLora && std::filesystem::is_regular_file(o.model))
    throw Error(ErrorKind::kUsage,
                fmt::format("--method {}: what comes of it is a folder, and the model is a file",
                            name_of(o.method)),
                "lapidary convert makes a folder of a GGUF file");
}

void check_adapters(const TrainOptions& o) {
  if (!(o.alpha > 0 && std::isfinite(o.alpha)))
    fail_usage("--alpha: {} given, expected more than 0", o.alpha);
  if (o.last_layers < 0) fail_usage("--last-layers: {} is negative", o.last_layers);
  if (!(o.dropout >= 0 && o.dropout < 1)) fail_usage("--dropout: {} is not in [0, 1)", o.dropout);
  if (o.dora && o.method != TrainMethod::kLora)
    fail_usage("--dora: is of --method lora, found {}", name_of(o.method));
  if (o.dora && o.rank_every > 0)
    fail_usage("--rank-every: what --dora adds to a matrix is not low-rank factors alone");
  if (!(o.prune >= 0 && o.prune <= 1)) fail_usage("--prune: {} is not in [0, 1]", o.prune);
}

void check_restarts(const TrainOptions& o) {
  const bool relora = o.method == TrainMethod::kRelora;
  if ((relora || o.schedule == "jagged") && o.reset_every < 1)
    fail_usage("--reset-every: {} given, expected the steps between restarts", o.reset_every);
  if (o.warm_start < 0) fail_usage("--warm-start: {} is negative", o.warm_start);
  if (!relora) return;
  if (o.warm_start >= o.iterations)
    fail_usage("--warm-start: {} leaves none of the {} steps of --iters to adapters", o.warm_start,
               o.iterations);
  if (schedule_name(o) == "jagged" && o.warm_start % o.reset_every != 0)
    fail_usage(
        "--warm-start: {} is no multiple of --reset-every {}: the rate would not fall where "
        "adapters are merged",
        o.warm_start, o.reset_every);
}

}  // namespace

std::string_view schedule_name(const TrainOptions& o) {
  if (!o.schedule.empty()) return o.schedule;
  return o.method == TrainMethod::kRelora ? "jagged" : "cosine";
}

void check_options(const TrainOptions& options) {
  check_run(options);
  check_adapters(options);
  check_restarts(options);
}

void check_options(const TrainOptions& o, const TrainingData& data) {
  // What is known by heart is measured at each validation, and needs no data for it.
  if (o.eval_every > 0 && !data.valid && o.track_memorization == 0)
    throw Error(ErrorKind::kUsage, "--eval-every: there is no validation data",
                "--valid-fraction takes some of the documents for it; so does a folder with a "
                "valid.jsonl");
}

}  // namespace lapidary
