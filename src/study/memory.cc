// A generation, caches and a training, with the system's count of what is in memory beside.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <malloc.h>
#include <mutex>
#include <thread>
#include <utility>

#include "lapidary/memory_study.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/mapped_file.h"
#include "base/process_memory.h"
#include "base/rng.h"
#include "base/system.h"
#include "gemma/kv_cache.h"
#include "gemma/load.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;
using Pieces = std::vector<std::span<const std::byte>>;

std::vector<fs::path> weight_files(const Model& model) {
  std::vector<fs::path> files;
  for (const SafetensorsFile& file : model.checkpoint.files())
    files.push_back(fs::canonical(file.path()));
  if (model.gguf)
    for (const MappedFile& file : model.gguf->files()) files.push_back(fs::canonical(file.path()));
  return files;
}

std::optional<int64_t> cached_bytes(const std::vector<fs::path>& files) {
  if (!std::ranges::all_of(files, tells_page_cache)) return std::nullopt;
  int64_t bytes = 0;
  for (const fs::path& path : files) {
    const MappedFile file = MappedFile::open(path);
    const std::span<const std::byte> all[] = {file.bytes()};
    bytes += resident_bytes(all);
  }
  return bytes;
}

// Looks at the process every few milliseconds, for as long as it lives. Of long work the samples
// lie further apart: there are never more than kMost.
class Sampler {
 public:
  explicit Sampler(const Stopwatch& clock) : clock_(clock), thread_([this] { run(); }) {}
  ~Sampler() { stop(); }
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  void set_kv_cache(int64_t bytes) { kv_cache_ = bytes; }
  std::vector<MemorySample> stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
    return std::move(samples_);
  }

 private:
  static constexpr size_t kMost = 1000;

  void run() {
    std::unique_lock lock(mutex_);
    while (!stopped_) {
      const ResidentSize now = resident_size();
      samples_.push_back({clock_.seconds(), now.total, now.total - now.files, kv_cache_});
      if (samples_.size() == kMost) {
        for (size_t i = 0; i < kMost / 2; ++i) samples_[i] = samples_[2 * i];
        samples_.resize(kMost / 2);
        every_ *= 2;
      }
      wake_.wait_for(lock, every_, [this] { return stopped_; });
    }
  }

  const Stopwatch& clock_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;  // guarded by mutex_
  std::chrono::microseconds every_{2000};
  std::vector<MemorySample> samples_;
  std::atomic<int64_t> kv_cache_{0};
  std::thread thread_;  // last: it uses what is above
};

// What of the process is not of the files.
struct Counted {
  Pieces kv_cache = {}, trained = {}, optimizer = {};
};

// Phases one after another, each from the end of the one before. What was freed is given back to
// the system before a phase is measured: else the allocator keeps it, and what the next phase takes
// of it would be charged to the one that freed it.
class Phases {
 public:
  Phases(const Stopwatch& clock, const std::vector<fs::path>& files)
      : clock_(clock), files_(files) {
    ::malloc_trim(0);
    by_phase_ = restart_peak_rss();
  }

  void end(const char* name, const Counted& counted, std::optional<MemoryParts> predicted) {
    MemoryPhase phase{.name = name,
                      .begin = phases_.empty() ? 0 : phases_.back().end,
                      .end = clock_.seconds(),
                      .predicted = predicted,
                      .peak = peak_rss_bytes()};
    ::malloc_trim(0);
    const ProcessMemory memory = process_memory(files_);
    MemoryParts& m = phase.measured;
    m.weights = memory.files;
    m.kv_cache = resident_bytes(counted.kv_cache);
    m.trained = resident_bytes(counted.trained);
    m.optimizer = resident_bytes(counted.optimizer);
    m.rest = memory.total() - m.total();
    phase.anonymous = memory.anonymous;
    phases_.push_back(std::move(phase));
    if (by_phase_) restart_peak_rss();
  }

  bool by_phase() const { return by_phase_; }
  std::vector<MemoryPhase> take() { return std::move(phases_); }

 private:
  const Stopwatch& clock_;
  const std::vector<fs::path>& files_;
  bool by_phase_ = false;
  std::vector<MemoryPhase> phases_;
};

Counted caches_of(const Session& session) {
  Counted counted;
  for (int layer = 0; layer < session.engine().config().num_hidden_layers; ++layer)
    for (const auto& block : session.kv_blocks(layer)) counted.kv_cache.push_back(block);
  return counted;
}

MemoryParts predicted(const Engine& engine, int64_t positions) {
  const MemoryForecast f = engine.forecast(positions);
  return {.weights = f.weights, .kv_cache = f.kv_cache, .rest = f.workspace + f.adapters};
}

std::vector<Token> meaningless_tokens(int64_t count, int vocabulary) {
  const CounterRng rng(1);
  std::vector<Token> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(
        static_cast<Token>(rng.bits(static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocabulary)));
  return tokens;
}

std::vector<LayerMemory> layers_of(const Model& model, const Session& session, bool cached) {
  const Config& c = model.config;
  std::vector<LayerMemory> layers(static_cast<size_t>(c.num_hidden_layers));
  std::vector<Pieces> pieces(layers.size());
  size_t layer = 0;
  const auto add = [&](const Linear& w) {
    layers[layer].weights += w.bytes();
    const auto part = [&](const std::byte* data, int64_t bytes) {
      pieces[layer].emplace_back(data, static_cast<size_t>(bytes));
    };
    part(w.data, w.rows * w.row_bytes());
    if (!w.affine()) return;
    part(w.scales, w.rows * w.row_groups() * size_of(w.dtype));
    part(w.biases, w.rows * w.row_groups() * size_of(w.dtype));
  };
  // By kind: kv_cache_bytes() of a model that has this layer alone.
  Config one = c;
  one.num_hidden_layers = 1;
  for (layer = 0; layer < layers.size(); ++layer) {
    const LayerWeights& w = model.weights.layers[layer];
    for (const Linear* matrix :
         {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj, &w.gate_proj, &w.up_proj, &w.down_proj})
      add(*matrix);
    const int index = static_cast<int>(layer);
    one.layer_types = {c.layer_types[layer]};
    LayerMemory& m = layers[layer];
    m.layer = index;
    m.sliding = c.is_sliding(index);
    m.weights_cached = cached ? resident_bytes(pieces[layer]) : 0;
    m.kv_predicted = kv_cache_bytes(one, session.engine().kv_type(), session.length());
    m.kv_cache = resident_bytes(session.kv_blocks(index));
  }
  return layers;
}

void measure_generation(const MemoryOptions& o, const std::vector<fs::path>& files,
                        const Watch& watch, MemoryStudy& study) {
  const Stopwatch clock;
  Phases phases(clock, files);
  Sampler sampler(clock);
  const auto engine = Engine::load(o.model, o.engine);
  Session session(engine, o.prompt + o.generated);
  phases.end("load", {}, predicted(*engine, 0));

  const Watch prefill{[&](int64_t done, int64_t) {
                        sampler.set_kv_cache(session.kv_bytes());
                        watch.report(done, o.prompt + o.generated);
                      },
                      watch.stop};
  std::span<const float> logits =
      session.append(meaningless_tokens(o.prompt, engine->config().vocab_size), prefill);
  phases.end("prefill", caches_of(session), predicted(*engine, session.length()));
  for (int64_t i = 0; i < o.generated; ++i) {
    const Token next[] = {static_cast<Token>(std::ranges::max_element(logits) - logits.begin())};
    logits = session.append(next, Watch{{}, watch.stop});
    sampler.set_kv_cache(session.kv_bytes());
    watch.report(session.length(), o.prompt + o.generated);
  }
  if (o.generated > 0)
    phases.end("decode", caches_of(session), predicted(*engine, session.length()));

  study.peaks_by_phase = phases.by_phase();
  study.generation = {.prompt = o.prompt,
                      .generated = o.generated,
                      .kv_type = engine->kv_type(),
                      .phases = phases.take(),
                      .timeline = sampler.stop()};
  const bool tells = std::ranges::all_of(files, tells_page_cache);
  study.generation.layers = layers_of(load_model(o.model), session, tells);
}

// 256, 512, ... and the longest.
std::vector<int64_t> growing_contexts(int64_t longest) {
  std::vector<int64_t> contexts;
  for (int64_t context = 256; context < longest; context *= 2) contexts.push_back(context);
  contexts.push_back(longest);
  return contexts;
}

KvGrowth measure_growth(const Config& config, KvType type, int64_t longest, const Watch& watch) {
  const int64_t most = kv_cache_bytes(config, type, longest), available = available_memory_bytes();
  if (most > available)
    throw Error(ErrorKind::kResource,
                fmt::format("a cache of {} positions in {} needs {} MiB; {} MiB of memory are "
                            "available",
                            longest, name_of(type), most >> 20, available >> 20),
                "give a shorter context with -c, or other types with --cache-types");
  KvGrowth growth{.type = type};
  KvCache cache(config, type, std::make_shared<KvBlockPool>(KvCache::block_bytes(config, type)));
  const std::vector<float> values(static_cast<size_t>(kKvBlock * config.kv_dim()), 0.5f);
  for (const int64_t context : growing_contexts(longest)) {
    while (cache.length() < context) {
      watch.throw_if_stopped();
      const int64_t n = std::min<int64_t>(kKvBlock, context - cache.length());
      for (int layer = 0; layer < config.num_hidden_layers; ++layer)
        cache.append(layer, values.data(), values.data(), n);
      cache.advance(n);
    }
    Pieces blocks;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer)
      for (const std::byte* block : cache.blocks(layer))
        blocks.emplace_back(block, static_cast<size_t>(KvCache::block_bytes(config, type)));
    growth.points.push_back(
        {context, kv_cache_bytes(config, type, context), resident_bytes(blocks)});
  }
  return growth;
}

MemoryParts predicted(const TrainMemory& m) {
  return {.weights = m.weights,
          .trained = m.trained,
          .optimizer = m.optimizer,
          .rest = m.activations + m.program};
}

class TrainingWatch {
 public:
  TrainingWatch(const TrainOptions& options, const std::vector<fs::path>& files)
      : steps_(options.iterations), phases_(clock_, files), sampler_(clock_) {}

  TrainEvents events() {
    return {.begin = [this](const TrainMemory& memory) { made_.forecast = memory; },
            .moment = [this](const TrainMoment& moment) { see(moment); }};
  }
  TrainingMemory take() {
    made_.steps = steps_;
    made_.phases = phases_.take();
    made_.timeline = sampler_.stop();
    return std::move(made_);
  }

 private:
  using Kind = TrainMoment::Kind;

  void see(const TrainMoment& moment) {
    const auto end = [&](const char* name) {
      phases_.end(name, {.trained = moment.trained, .optimizer = moment.optimizer},
                  predicted(made_.forecast));
    };
    if (moment.step == 1) {
      // Layers whose forward pass is done again come after the loss.
      if (moment.kind == Kind::kForward && !began_) end("before"), began_ = true;
      if (moment.kind == Kind::kLoss) end("forward");
      if (moment.kind == Kind::kOptimizer) end("backward");
      if (moment.kind == Kind::kEnd) end("optimizer");
      layer(moment);
    } else if (moment.step == steps_ && moment.kind == Kind::kEnd) {
      end("later steps");
    }
  }

  void layer(const TrainMoment& moment) {
    if (moment.kind != Kind::kForward && moment.kind != Kind::kBackward) return;
    const auto index = static_cast<size_t>(moment.layer);
    if (made_.layers.size() <= index) made_.layers.resize(index + 1);
    LayerActivations& activations = made_.layers[index];
    activations.layer = moment.layer;
    const ResidentSize now = resident_size();
    int64_t& anonymous =
        moment.kind == Kind::kBackward ? activations.backward : activations.forward;
    if (anonymous == 0) anonymous = now.total - now.files;
  }

  int64_t steps_;
  Stopwatch clock_;
  Phases phases_;
  Sampler sampler_;
  bool began_ = false;
  TrainingMemory made_;
};

}  // namespace

MemoryStudy study_memory(const MemoryOptions& options, const Watch& watch) {
  if (options.prompt < 1) fail_usage("prompt: {} tokens given, expected 1 or more", options.prompt);
  MemoryStudy study;
  std::vector<fs::path> files;
  Config config;
  {
    const Model model = load_model(options.model);
    files = weight_files(model);
    config = model.config;
  }
  const int64_t most = config.max_position_embeddings;
  if (options.context > most)
    fail("{} positions asked for, the model was made for {}", options.context, most);
  const int64_t longest = options.context > 0 ? options.context : std::min<int64_t>(8192, most);
  for (const fs::path& file : files) study.file_bytes += static_cast<int64_t>(fs::file_size(file));
  study.cached_before = cached_bytes(files);
  measure_generation(options, files, watch, study);
  study.cached_after = cached_bytes(files);
  for (const KvType type : options.kv_types)
    study.growth.push_back(measure_growth(config, type, longest, Watch{{}, watch.stop}));
  if (options.training) {
    TrainOptions training = *options.training;
    training.model = options.model;
    training.micro_batch = training.batch_size;
    TrainingWatch seen(training, files);
    train(training, watch, seen.events());
    study.training = seen.take();
  }
  return study;
}

}  // namespace lapidary
