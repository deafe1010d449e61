// lapidary train: a model or an adapter learns from a text.
#include "lapidary/train.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/system.h"
#include "train/check_options.h"
#include "train/run_folder.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

// A flag that means nothing unless one of `uses` is chosen: values of a choice.
struct ChoiceUse {
  std::string_view choice;
  std::vector<std::string_view> values;
};
struct DependentFlag {
  const CLI::Option* option;
  std::vector<ChoiceUse> uses;
};

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::string method = "lora";
  std::string objective;
  std::string data, run;
  std::string directions = "top";
  std::string compute = "fast";
  TrainOptions train;
  bool no_packing = false;
  bool plain_completion = false;
  bool json = false;
  std::vector<DependentFlag> dependent_flags;
};

template <class T>
CLI::Option* number(CLI::App& verb, const char* flags, T& value, const char* help,
                    const char* group) {
  return verb.add_option(flags, value, help)
      ->type_name(std::is_floating_point_v<T> ? "X" : "N")
      ->group(group);
}

void add_run(CLI::App& verb, Options& o) {
  verb.add_option("--data", o.data,
                  "What to learn from: a .jsonl file (text; prompt and completion; or messages), a "
                  "folder with train.jsonl and valid.jsonl (or .txt), or a plain text file")
      ->type_name("PATH")
      ->required()
      ->group("Run");
  verb.add_option("-o,--output", o.run, "The folder of the run: metrics, state, and the result")
      ->type_name("DIR")
      ->required()
      ->group("Run");
  choices(verb.add_option("--method", o.method,
                          "Adapters (lora), every weight (full), adapters that are merged and "
                          "begun anew (relora), or steps of a low rank (rank1); sbd is full with "
                          "--objective sbd")
              ->group("Run"),
          {"full", "lora", "relora", "rank1", "sbd"});
  choices(verb.add_option("--objective", o.objective,
                          "What is learned: each next token (next), or that and masked tokens of "
                          "blocks, for set-block decoding (sbd)")
              ->group("Run"),
          {"next", "sbd"});
  number(verb, "--iters", o.train.iterations, "Steps (1000)", "Run");
  verb.add_flag("--resume", o.train.resume, "Go on with the run that is in the folder")
      ->group("Run");
  number(verb, "--save-every", o.train.save_every,
         "Steps between saved states (0: at the end, and when stopped)", "Run");
  number(verb, "--eval-every", o.train.eval_every, "Steps between validations (0: at the end)",
         "Run");
  number(verb, "--rank-every", o.train.rank_every,
         "Steps between measurements of the rank of each matrix' update (0: none)", "Run");
  number(verb, "--track-memorization", o.train.track_memorization,
         "At each validation and at the end, measure what is known by heart of so many sequences "
         "and how many of them can be extracted, and of as many of validation (0: none)",
         "Run");
  number(verb, "--seed", o.train.seed, "Of the order of the data, adapters and dropout (0)", "Run");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Run");
}

void add_data(CLI::App& verb, TrainOptions& o, bool& no_packing, bool& plain_completion) {
  number(verb, "--batch-size", o.batch_size, "Rows of a step (4)", "Data");
  number(verb, "--micro-batch", o.micro_batch,
         "Of them, how many go through the model at once (1; with --max-memory, what fits)",
         "Data");
  number(verb, "--sequence-length", o.sequence_length, "Tokens of a row (512)", "Data");
  verb.add_flag("--no-packing", no_packing, "One document to a row")->group("Data");
  choices(verb.add_option("--long-documents", o.long_documents,
                          "What to do with documents longer than a row (refuse)")
              ->group("Data"),
          {"refuse", "truncate", "split"});
  verb.add_flag("--prompt-loss", o.prompt_loss, "Learn prompts and users' turns too")
      ->group("Data");
  verb.add_flag("--plain-completion", plain_completion,
                "Prompt and completion are plain text, one after the other, and no turns of a chat")
      ->group("Data");
  number(verb, "--valid-fraction", o.valid_fraction,
         "Share of the documents to validate on, where there is no file for it (0)", "Data");
}

void add_optimizer(CLI::App& verb, TrainOptions& o) {
  const char* group = "Optimizer";
  number(verb, "--learning-rate,--lr", o.learning_rate, "The highest rate (1e-4)", group);
  choices(verb.add_option("--optimizer", o.optimizer, "(adamw)")->group(group),
          {"adamw", "adamw8", "sgd", "muon"});
  choices(verb.add_option("--schedule", o.schedule, "How the rate falls (cosine; relora: jagged)")
              ->group(group),
          {"constant", "linear", "cosine", "jagged"});
  number(verb, "--warmup", o.warmup, "Steps up to the highest rate (0)", group);
  number(verb, "--min-lr-ratio", o.min_lr_ratio,
         "But for constant: the share of the rate that is left (0.1)", group);
  number(verb, "--beta1", o.beta1, "Of AdamW, also within Muon (0.9)", group);
  number(verb, "--beta2", o.beta2, "Of AdamW, also within Muon (0.999)", group);
  number(verb, "--eps", o.eps, "Of AdamW, also within Muon (1e-8)", group);
  number(verb, "--weight-decay", o.weight_decay, "Of matrices (0.01)", group);
  number(verb, "--momentum", o.momentum, "Of SGD (0)", group);
  number(verb, "--max-grad-norm", o.max_grad_norm, "Clip gradients to it; 0: do not (1)", group);
}

void add_adapters(CLI::App& verb, TrainOptions& o, std::string& directions) {
  const char* group = "Adapters";
  number(verb, "--rank", o.rank, "Of an adapter, or of the steps of rank1 (8)", group);
  number(verb, "--alpha", o.alpha, "lora, relora: an adapter counts alpha / rank times (16)",
         group);
  verb.add_flag("--rslora", o.rslora, "lora, relora: it counts alpha / sqrt(rank) times")
      ->group(group);
  verb.add_flag("--dora", o.dora, "lora: the matrices' rows have lengths that are learned as well")
      ->group(group);
  number(verb, "--dropout", o.dropout, "lora, relora: of what adapters see (0)", group);
  verb.add_option("--targets", o.targets,
                  "Patterns of matrices, as q_proj,'mlp.*' or, of one layer, 'layers.3.*' "
                  "(default: all)")
      ->delimiter(',')
      ->type_name("LIST")
      ->group(group);
  number(verb, "--last-layers", o.last_layers, "Only so many layers, the last ones (0: all)",
         group);
  verb.add_flag("--train-embeddings", o.train_embeddings, "Beside relora or rank1")->group(group);
  verb.add_flag("--train-norms", o.train_norms, "Beside relora or rank1")->group(group);
  number(verb, "--warm-start", o.warm_start, "relora: steps of full training before (0)", group);
  number(verb, "--reset-every", o.reset_every, "relora, jagged: steps between merges, or restarts",
         group);
  number(verb, "--reset-warmup", o.reset_warmup, "jagged: steps back up to the rate (50)", group);
  number(verb, "--prune", o.prune,
         "relora: share of the optimizer's state that a merge zeroes (0.99)", group);
  number(verb, "--merge-every", o.merge_every, "rank1: steps that share directions (1)", group);
  verb.add_flag("--reset-optimizer", o.reset_optimizer,
                "rank1: begin the optimizer's state anew with the directions")
      ->group(group);
  choices(verb.add_option("--directions", directions, "rank1: where they come from (top)")
              ->group(group),
          {"random", "aligned", "top"});
}

void know_choices(const CLI::App& verb, Options& o) {
  const auto of = [&](std::initializer_list<const char*> names, std::vector<ChoiceUse> uses) {
    for (const char* name : names) o.dependent_flags.push_back({verb.get_option(name), uses});
  };
  of({"--rank"}, {{"method", {"lora", "relora", "rank1"}}});
  of({"--alpha", "--rslora", "--dropout"}, {{"method", {"lora", "relora"}}});
  of({"--targets", "--last-layers"}, {{"method", {"lora", "relora", "rank1"}}});
  of({"--train-embeddings", "--train-norms"}, {{"method", {"relora", "rank1"}}});
  of({"--warm-start", "--prune"}, {{"method", {"relora"}}});
  of({"--reset-every"}, {{"method", {"relora"}}, {"schedule", {"jagged"}}});
  of({"--reset-warmup"}, {{"schedule", {"jagged"}}});
  of({"--min-lr-ratio"}, {{"schedule", {"linear", "cosine", "jagged"}}});
  of({"--merge-every", "--reset-optimizer", "--directions"}, {{"method", {"rank1"}}});
  of({"--beta1", "--beta2", "--eps"}, {{"optimizer", {"adamw", "adamw8", "muon"}}});
  of({"--momentum"}, {{"optimizer", {"sgd"}}});
  of({"--mask-token", "--block-min", "--block-max"}, {{"objective", {"sbd"}}});
}

// No flag is ignored in silence.
void check_choices(const Options& o, const TrainOptions& options) {
  const auto chosen = [&](std::string_view choice) -> std::string_view {
    if (choice == "method") return o.method;
    if (choice == "optimizer") return options.optimizer;
    if (choice == "objective") return name_of(options.objective);
    return schedule_name(options);
  };
  for (const DependentFlag& flag : o.dependent_flags) {
    const auto holds = [&](const ChoiceUse& use) {
      return std::ranges::find(use.values, chosen(use.choice)) != use.values.end();
    };
    if (flag.option->count() == 0 || std::ranges::any_of(flag.uses, holds)) continue;
    std::vector<std::string> uses;
    for (const ChoiceUse& use : flag.uses)
      uses.push_back(fmt::format("--{} {}", use.choice, fmt::join(use.values, " or ")));
    fail_usage("{}: is of {}, found {}", flag.option->get_name(), fmt::join(uses, " or "),
               chosen(flag.uses.front().choice));
  }
}

void add_set_blocks(CLI::App& verb, TrainOptions& o) {
  const char* group = "Set blocks";
  verb.add_option("--mask-token", o.mask_token,
                  "sbd: what stands for a masked token, a piece or an id (<mask>)")
      ->type_name("PIECE|ID")
      ->group(group);
  number(verb, "--block-min", o.block_min, "sbd: tokens of a block, at least (2)", group);
  number(verb, "--block-max", o.block_max, "sbd: and at most; each step draws one size (16)",
         group);
}

void setup(CLI::App& verb, Options& o) {
  add_model(verb, o.model);
  add_run(verb, o);
  add_data(verb, o.train, o.no_packing, o.plain_completion);
  add_optimizer(verb, o.train);
  add_adapters(verb, o.train, o.directions);
  add_set_blocks(verb, o.train);
  know_choices(verb, o);
  add_threads(verb, o.train.threads, "General");
  choices(verb.add_option("--compute", o.compute,
                          "fast: products of operands rounded to bf16 where those are faster "
                          "(default); exact: of f32 everywhere")
              ->envname("LAPIDARY_COMPUTE")
              ->group("General"),
          {"exact", "fast"});
  add_bytes(verb, "--max-memory", o.train.max_memory,
            "Train within it, as 2.5GiB, by --micro-batch and --checkpoint-layers (what is free)",
            "General");
  number(verb, "--checkpoint-layers", o.train.checkpoint_layers,
         "Keep what N layers leave for their way back, and compute those before again: less "
         "memory; 0: keep all (what fits)",
         "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Ctrl-C saves the state; --resume goes on as if nothing had happened. Under mpirun, all "
      "processes train together. docs/training.md has the methods.\n"
      "\n"
      "Examples:\n"
      "  lapidary train -m models/gemma-3-1b-it --data chats.jsonl -o run\n"
      "  lapidary train -m 1b-4bit --data chats.jsonl -o run --dora --rank 16\n"
      "  lapidary train --method full --data book.txt -o run --lr 3e-4\n"
      "  lapidary train --method relora --warm-start 500 --reset-every 500 \\\n"
      "      --iters 3000 --data book.txt -o run\n"
      "  lapidary train --method rank1 --rank-every 100 --data book.txt -o run\n"
      "  lapidary train --method sbd --data book.txt -o run --lr 3e-4\n"
      "  lapidary train --method lora --objective sbd -m 1b --data chats.jsonl -o run\n"
      "  lapidary train ... -o run --resume");
}

TrainOptions options_of(const Options& o) {
  TrainOptions options = o.train;
  options.model = model_folder(o.model, o.verbosity);
  options.data = o.data;
  options.run = o.run;
  const bool sbd = o.method == "sbd";
  options.method = sbd ? TrainMethod::kFull : train_method(o.method);
  if (sbd && o.objective == "next")
    fail_usage("--objective next: --method sbd is full training with --objective sbd");
  if (sbd) options.objective = TrainObjective::kSetBlock;
  if (!o.objective.empty()) options.objective = train_objective(o.objective);
  check_choices(o, options);
  options.packing = !o.no_packing;
  options.chat_completion = !o.plain_completion;
  options.directions = train_directions(o.directions);
  options.compute = o.compute == "exact" ? Compute::kExact : Compute::kFast;
  return options;
}

Json result_json(const TrainResult& r, const Options& o, TrainObjective objective) {
  Json json = {{"method", o.method},
               {"objective", name_of(objective)},
               {"steps", r.steps},
               {"parameters", r.parameters},
               {"tokens", r.tokens},
               {"loss", r.loss},
               {"seconds", r.seconds},
               {"tokens_per_second", r.tokens_per_second},
               {"peak_rss_bytes", peak_rss_bytes()},
               {"memory_forecast_bytes", r.memory.total()},
               {"micro_batch", r.memory.micro_batch},
               {"checkpoint_layers", r.memory.checkpoint_layers},
               {"operands", r.bf16 ? "bf16" : "f32"},
               {"data", to_json(r.data)},
               {"output", r.output.string()}};
  if (r.valid_loss) json["valid_loss"] = *r.valid_loss;
  const auto add = [&](const std::optional<SetBlockLoss>& loss, const std::string& prefix) {
    if (!loss) return;
    json[prefix + "ntp_loss"] = loss->next;
    if (loss->masked) json[prefix + "matp_loss"] = *loss->masked;
  };
  add(r.set_block, "");
  add(r.valid_set_block, "valid_");
  if (r.memorization) {
    json["memorized_bits"] = r.memorization->bits;
    json["extraction_rate"] = r.memorization->extraction_rate;
  }
  if (r.memorization && r.memorization->auc) {
    json["valid_memorized_bits"] = *r.memorization->valid_bits;
    json["valid_extraction_rate"] = *r.memorization->valid_extraction_rate;
    json["membership_auc"] = *r.memorization->auc;
  }
  return json;
}

std::string memory_text(const TrainMemory& m) {
  std::string text =
      fmt::format("memory: {} at most (weights {}, trained {}, optimizer {}, activations {})",
                  bytes_text(m.total()), bytes_text(m.weights), bytes_text(m.trained),
                  bytes_text(m.optimizer), bytes_text(m.activations));
  if (m.micro_batch > 1) text += fmt::format(", {} rows at once", m.micro_batch);
  if (m.checkpoint_layers > 0) text += fmt::format(", {} layers kept at once", m.checkpoint_layers);
  return text;
}

std::string data_text(const DataReport& d, const TrainOptions& o) {
  std::string text =
      fmt::format("data: {} documents, {} sequences, {} tokens", count_text(d.documents),
                  count_text(d.sequences), count_text(d.tokens));
  if (d.truncated > 0)
    text += fmt::format("; {} documents cut to {} tokens, losing {}", count_text(d.truncated),
                        o.sequence_length, count_text(d.truncated_away));
  if (d.split > 0) text += fmt::format("; {} documents split", count_text(d.split));
  if (d.without_targets > 0)
    text += fmt::format("; {} sequences left out, as nothing in them counts",
                        count_text(d.without_targets));
  return text;
}

// Of a loss with set blocks.
std::string terms_text(const std::optional<SetBlockLoss>& loss) {
  if (!loss) return {};
  return fmt::format(" (next {:.4f}, masked {})", loss->next,
                     loss->masked ? fmt::format("{:.4f}", *loss->masked) : "none");
}

int run(const Options& o) {
  apply(o.verbosity);
  const TrainOptions options = options_of(o);
  const Interruption interruption;
  TrainResult result;
  {
    ProgressBar bar("training", o.verbosity);
    const auto show = [&](const TrainStep& s) {
      const int64_t every = std::max<int64_t>(1, options.iterations / 20);
      const bool measured = s.valid_loss || s.memorization;
      if (o.verbosity.quiet || (s.step % every != 0 && s.step != 1 && !measured)) return;
      bar.clear();
      std::string line = fmt::format("step {:>6}  loss {:.4f}{}  lr {:.2e}  {:.0f} tok/s", s.step,
                                     s.loss, terms_text(s.set_block), s.lr, s.tokens_per_second);
      if (s.valid_loss)
        line += fmt::format("  valid {:.4f}{}", *s.valid_loss, terms_text(s.valid_set_block));
      if (s.memorization) line += fmt::format("  {:.1f} bits by heart", s.memorization->bits);
      note(line);
    };
    const auto begin = [&](const TrainMemory& memory) {
      if (!o.verbosity.quiet) note(memory_text(memory));
    };
    const auto tell_data = [&](const DataReport& data) {
      if (!o.verbosity.quiet) note(data_text(data, options));
    };
    result = train(options, Watch{bar.fn(), interruption.token()}, {begin, show, {}, tell_data});
  }
  if (result.rank > 0) return kOk;
  if (o.json)
    out_json(result_json(result, o, options.objective));
  else if (!o.verbosity.quiet)
    note(fmt::format("{}: {} parameters, {} tokens, {:.0f} tok/s, operands of {}, peak memory {}",
                     result.output.string(), count_text(result.parameters),
                     count_text(result.tokens), result.tokens_per_second,
                     result.bf16 ? "bf16" : "f32", bytes_text(peak_rss_bytes())));
  return kOk;
}

}  // namespace

void add_train(Program& program) {
  add_verb<Options>(program, "train", "Train a model, or an adapter, on a text", setup, run);
}

}  // namespace lapidary::cli
