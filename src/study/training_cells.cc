#include "study/training_cells.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "gemma/adapter_file.h"
#include "io/output_file.h"
#include "train/token_source.h"

namespace lapidary {

namespace fs = std::filesystem;

double gain(double more, double less) {
  return less > 0 ? more / less - 1 : 1;
}

FolderLock begin_study(const fs::path& folder, const OrderedJson& options,
                       std::initializer_list<std::string_view> free) {
  const fs::path file = folder / "options.json";
  if (!fs::exists(file)) {
    std::error_code ignored;  // of what is no folder: making it says why
    if (fs::is_directory(folder, ignored) && !holds_only_temporaries(folder))
      throw Error(
          ErrorKind::kUsage,
          fmt::format("{} is there already, and was not begun by this study", folder.string()),
          "name another with -o");
  } else {
    const OrderedJson before = read_ordered_json_file(file);
    for (const auto& [key, value] : options.items())
      if (std::ranges::find(free, key) == free.end() && before.value(key, OrderedJson()) != value)
        throw Error(ErrorKind::kInput,
                    fmt::format("{}: begun with {} {}, now {}", file.string(), key,
                                before.value(key, OrderedJson()).dump(), value.dump()),
                    "go on with the same options, or name another folder with -o");
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_resource("{}: cannot create: {}", folder.string(), error.message());
  FolderLock lock(folder);
  remove_temporaries(folder);
  write_file(file, options.dump(2) + "\n");
  return lock;
}

void check_recipe(const CapacityRecipe& recipe, int64_t length) {
  if (recipe.length < length)
    fail_usage("--length: {} given, expected {} or more", recipe.length, length);
  if (recipe.batch < 1) fail_usage("--batch-size: {} given, expected 1 or more", recipe.batch);
  if (!(recipe.learning_rate > 0 && std::isfinite(recipe.learning_rate)))
    fail_usage("--lr: {} given, expected more than 0", recipe.learning_rate);
  if (!(recipe.weight_decay >= 0 && std::isfinite(recipe.weight_decay)))
    fail_usage("--weight-decay: {} given, expected 0 or more", recipe.weight_decay);
}

void put_recipe(OrderedJson& options, const CapacityRecipe& recipe) {
  options["length"] = recipe.length;
  options["batch"] = recipe.batch;
  options["optimizer"] = recipe.optimizer;
  options["learning_rate"] = recipe.learning_rate;
  options["weight_decay"] = recipe.weight_decay;
  options["seed"] = recipe.seed;
}

std::string recipe_text(const CapacityRecipe& recipe) {
  return fmt::format("{} sequences a step, {} at {}, weight decay {}, seed {}", recipe.batch,
                     recipe.optimizer, recipe.learning_rate, recipe.weight_decay, recipe.seed);
}

int64_t step_sequences(const CapacityRecipe& recipe, int64_t sequences) {
  return std::min(recipe.batch, sequences);
}

TrainOptions training_of(const CapacityRecipe& recipe, std::string_view data, const fs::path& model,
                         const fs::path& run, int64_t sequences, int64_t steps) {
  return {.model = model,
          .data = fmt::format("{} {}", sequences, data),
          .run = run,
          .resume = fs::exists(run / "config.json"),
          .method = TrainMethod::kFull,
          .iterations = steps,
          .batch_size = step_sequences(recipe, sequences),
          .micro_batch = step_sequences(recipe, sequences),
          .sequence_length = recipe.length,
          .save_every = std::max<int64_t>(1, steps / 20),
          .seed = recipe.seed,
          .optimizer = recipe.optimizer,
          .learning_rate = recipe.learning_rate,
          .schedule = "cosine",
          .warmup = std::min<int64_t>(100, steps / 10),
          .min_lr_ratio = 0,
          .beta2 = 0.99,
          .weight_decay = recipe.weight_decay,
          .max_grad_norm = 0,
          .threads = 1,
          .compute = Compute::kExact,
          .checkpoint_layers = 0};
}

void run_cells(std::span<const TrainingCell> cells, int threads, const Watch& watch) {
  std::vector<size_t> order;
  int64_t done_tokens = 0, total = 0;
  for (const TrainingCell& cell : cells) {
    order.push_back(order.size());
    total += cell.tokens;
  }
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) {
    return static_cast<double>(cells[i].tokens) * cells[i].weight;
  });

  std::mutex mutex;  // of done_tokens and error
  std::atomic<size_t> next = 0;
  std::exception_ptr error;
  std::stop_source stop;
  const std::stop_callback outer(watch.stop, [&] { stop.request_stop(); });
  const auto work = [&] {
    for (size_t at = next++; at < order.size() && !stop.stop_requested(); at = next++) try {
        const TrainingCell& cell = cells[order[at]];
        int64_t before = 0;
        const auto tell = [&](int64_t done, int64_t all) {
          const std::lock_guard lock(mutex);
          done_tokens += cell.tokens / all * (done - std::exchange(before, done));
          watch.report(done_tokens, total);
        };
        cell.run(Watch{tell, stop.get_token()});
        if (before == 0) tell(1, 1);  // it was there already
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        stop.request_stop();
      }
  };
  {
    std::vector<std::jthread> workers;
    if (threads == 0) threads = cpu_budget().threads();
    for (int i = 1; i < threads; ++i) workers.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
  watch.throw_if_stopped();
}

namespace {

Adapter attached(const fs::path& path, Model& model) {
  return path.empty() ? Adapter{} : load_and_attach(path, 1, model.config, model.weights);
}

}  // namespace

SequenceReader::SequenceReader(const fs::path& model, int64_t length, const fs::path& adapter)
    : model_(load_model(model)),
      adapter_(attached(adapter, model_)),
      ex_(best_kernels(), 1),
      backprop_(ex_, model_.config, model_.weights, length, 0) {}

SequenceReading SequenceReader::read(const std::vector<Token>& tokens) {
  return read(all_but_first(tokens));
}

}  // namespace lapidary
