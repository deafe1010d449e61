#include "lapidary/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "lapidary/log.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/float16.h"
#include "base/rng.h"
#include "base/system.h"
#include "gemma/adapter_file.h"
#include "gemma/gguf_model.h"
#include "generate/engine_impl.h"
#include "generate/gguf_vocabulary.h"

namespace lapidary {

namespace {

constexpr int64_t kStateBytes = int64_t{40} << 20;  // activations of one chunk, at most
constexpr int64_t kMaxChunk = 512;
constexpr int64_t kMostChunk = 8192;  // that may be asked for
// Measured, see docs/performance.md: of a tokenizer per piece, and what the program takes beside
// what it had before it loaded anything: stacks of threads, the heap.
constexpr int64_t kPieceBytes = 120;
constexpr int64_t kBesideBytes = int64_t{3} << 20;

// The program before it loads its first model. No constant: the system maps more or less of the
// libraries at once, and which there are differs too.
int64_t program_bytes() {
  static const int64_t bytes = rss_bytes();
  return bytes;
}

// Tokens that go through the layers together: of a text whose tokens see those after them, all.
int64_t chunk_rows(const Config& config, const EngineOptions& options) {
  if (config.use_bidirectional_attention) return config.max_position_embeddings;
  if (options.chunk > 0) return options.chunk;
  const int64_t fitting = kStateBytes / State::bytes(config, 1);
  return std::clamp<int64_t>(fitting / 16 * 16, 16, kMaxChunk);
}

std::string gib(int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

void check_forecast(const MemoryForecast& need, const std::string& what) {
  const int64_t available = available_memory_bytes();
  if (need.total() <= available) return;
  throw Error(
      ErrorKind::kResource,
      fmt::format(
          "{}: needs {} (weights {}, K/V cache {}, workspace {}{}), {} of memory are available",
          what, gib(need.total()), gib(need.weights), gib(need.kv_cache), gib(need.workspace),
          need.adapters > 0 ? ", adapters " + gib(need.adapters) : "", gib(available)),
      "use a smaller context, a more strongly quantised model, or --no-memory-check");
}

}  // namespace

const Engine::Impl& inside(const Engine& engine) {
  return *engine.impl_;
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

std::shared_ptr<const Engine> Engine::load(const std::filesystem::path& folder,
                                           const EngineOptions& options) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  if (options.threads_batch < 0) fail_usage("threads_batch: {} is negative", options.threads_batch);
  if (options.chunk < 0 || options.chunk > kMostChunk)
    fail_usage("chunk: {} given, expected 1 to {} tokens, or 0", options.chunk, kMostChunk);
  program_bytes();  // measured here, whenever it is asked for
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->folder = folder;
  impl->model = load_model(folder, Accept::kEmbeddingToo);
  impl->attach_adapters();
  impl->read_text_side();
  const Config& config = impl->model.config;

  impl->kv_type =
      options.kv_type.value_or(options.compute == Compute::kExact ? KvType::kF32 : KvType::kBF16);
  impl->kv_pool = std::make_shared<KvBlockPool>(KvCache::block_bytes(config, impl->kv_type));
  // The reference multiplies by sqrt(D) rounded to the type it computes in.
  impl->embed_scale = options.compute == Compute::kExact
                          ? config.embed_scale()
                          : rounded_to(impl->model.dtype, config.embed_scale());

  impl->choose_threads();
  impl->executor = std::make_unique<Executor>(
      best_kernels(), std::max(impl->threads, impl->threads_batch),
      options.compute == Compute::kFast ? Activations::kRounded : Activations::kFloat);

  auto engine = std::shared_ptr<Engine>(new Engine(std::move(impl)));
  if (options.check_memory) check_forecast(engine->forecast(options.context), folder.string());
  engine->impl_->state = std::make_unique<State>(config, chunk_rows(config, options));
  return engine;
}

Tokenizer load_tokenizer(const std::filesystem::path& model) {
  if (!std::filesystem::is_regular_file(model)) return Tokenizer::load(model);
  const GgufFile file = GgufFile::open(model);
  std::optional<Tokenizer> tokenizer = read_gguf_vocabulary(file.contents(), model.string());
  if (!tokenizer) fail("{}: no vocabulary in it", model.string());
  return std::move(*tokenizer);
}

const std::filesystem::path& Engine::folder() const {
  return impl_->folder;
}
const Config& Engine::config() const {
  return impl_->model.config;
}
const GenerationConfig& Engine::generation_config() const {
  return impl_->generation_config;
}
bool Engine::has_tokenizer() const {
  return impl_->tokenizer.has_value();
}

const Tokenizer& Engine::tokenizer() const {
  if (!impl_->tokenizer)
    throw Error(ErrorKind::kInput,
                impl_->model.gguf ? fmt::format("{}: no vocabulary in it", impl_->folder.string())
                                  : fmt::format("{}: no tokenizer.json and no tokenizer.model",
                                                impl_->folder.string()),
                "give token ids with --ids instead of text");
  return *impl_->tokenizer;
}

Compute Engine::compute() const {
  return impl_->options.compute;
}
KvType Engine::kv_type() const {
  return impl_->kv_type;
}
int Engine::threads() const {
  return impl_->threads;
}
std::string Engine::isa() const {
  return std::string(impl_->executor->kernels().isa);
}
int64_t Engine::parameters() const {
  return impl_->model.parameters;
}
int64_t Engine::vision_tensors() const {
  return impl_->model.vision_tensors;
}

int64_t Engine::weight_bytes() const {
  int64_t bytes = 0;
  for (const WeightMatrix* m : list_matrices(impl_->model)) bytes += m->bytes();
  return bytes;
}

std::string Engine::weight_format() const {
  std::map<std::string, int64_t> bytes;  // by format
  for (const WeightMatrix* m : list_matrices(impl_->model)) bytes[format_name(*m)] += m->bytes();
  const auto largest = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return bytes.size() == 1 ? largest->first : "mostly " + largest->first;
}

MemoryForecast Engine::forecast(int64_t context) const {
  const Config& config = impl_->model.config;
  MemoryForecast forecast;
  forecast.weights = weight_bytes();
  if (!config.use_bidirectional_attention)  // whose texts leave nothing to go on from
    forecast.kv_cache = kv_cache_bytes(config, impl_->kv_type, context);
  forecast.workspace = State::bytes(config, chunk_rows(config, impl_->options)) +
                       2 * int64_t{config.vocab_size} * int64_t{sizeof(float)} +
                       (impl_->tokenizer ? impl_->tokenizer->size() * kPieceBytes : 0) +
                       program_bytes() + kBesideBytes;
  if (impl_->adapters.empty()) return forecast;
  int64_t widest = 0;  // floats of a row: what goes between the factors, and what comes out
  for (const Adapter& adapter : impl_->adapters)
    for (const AdapterMatrix& m : adapter.matrices)
      widest = std::max(widest, m.rank + (m.dora() ? 2 : 1) * (std::ssize(m.b) / m.rank));
  forecast.adapters =
      impl_->adapter_bytes() + chunk_rows(config, impl_->options) * widest * int64_t{sizeof(float)};
  return forecast;
}

uint64_t Engine::fingerprint() const {
  uint64_t hash = 0;
  const auto add = [&](std::span<const std::byte> bytes) {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      uint64_t word = bytes.size();
      std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
      hash = mix64(hash ^ word);
    }
  };
  const auto add_text = [&](const std::string& text) { add(std::as_bytes(std::span(text))); };
  add_text(config_json(config(), ""));
  add_text(fmt::format("{}", impl_->embed_scale));
  // A piece from each of 16 places of every tensor: another fine-tune of the same shape differs.
  constexpr size_t kPlaces = 16, kPiece = 64;
  const auto add_tensor = [&](const std::string& name, std::span<const int64_t> shape,
                              std::span<const std::byte> bytes) {
    add_text(name + shape_string(shape));
    for (size_t i = 0; i < kPlaces; ++i) {
      const size_t at = bytes.size() / kPlaces * i;
      add(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
    }
  };
  for (const NamedTensor& tensor : impl_->model.checkpoint.tensors())
    add_tensor(tensor.name, tensor.view.shape, tensor.view.bytes);
  if (impl_->model.gguf)
    for (const GgufTensor& tensor : impl_->model.gguf->contents().tensors)
      add_tensor(tensor.name, tensor.shape, tensor.bytes);
  for (size_t i = 0; i < impl_->adapters.size(); ++i)
    for (const AdapterMatrix& m : impl_->adapters[i].matrices) {
      add_text(fmt::format("{}", m.scale * impl_->options.adapters[i].strength));
      add_tensor(m.target, {{m.rank, std::ssize(m.a)}}, std::as_bytes(std::span(m.a)));
      add_tensor(m.target, {{m.rank, std::ssize(m.b)}}, std::as_bytes(std::span(m.b)));
      add_tensor(m.target, {{std::ssize(m.magnitude)}}, std::as_bytes(std::span(m.magnitude)));
    }
  return hash;
}

void Engine::Impl::attach_adapters() {
  for (const AdapterUse& use : options.adapters) {
    adapters.push_back(load_and_attach(use.path, use.strength, model.config, model.weights));
    if (adapters.back().set_block) set_block = adapters.back().set_block;
  }
}

int64_t Engine::Impl::adapter_bytes() const {
  int64_t floats = 0;
  for (const Adapter& adapter : adapters)
    for (const AdapterMatrix& m : adapter.matrices)
      floats += m.values() + std::ssize(m.inverse_norm);
  return floats * int64_t{sizeof(float)};
}

// The tokenizer's transient memory is gone before the first page of weights is touched.
void Engine::Impl::read_text_side() {
  if (!set_block) set_block = set_block_training(model);
  if (!model.gguf) {
    generation_config = read_generation_config(folder);
    if (Tokenizer::present(folder)) tokenizer = Tokenizer::load(folder);
    return;
  }
  const std::string where = folder.string();
  generation_config = read_gguf_generation_config(model.gguf->contents(), where);
  tokenizer = read_gguf_vocabulary(model.gguf->contents(), where);
  model.gguf->forget_metadata();
}

void Engine::Impl::choose_threads() {
  const CpuBudget budget = cpu_budget();
  threads = options.threads > 0 ? options.threads : budget.threads();
  threads_batch = options.threads_batch > 0 ? options.threads_batch : threads;
  log(LogLevel::kDebug,
      fmt::format("{} kernels; {} threads to decode, {} for prompts; {}", best_kernels().isa,
                  threads, threads_batch, budget.explanation()));
  warn_of_threads(std::max(threads, threads_batch), budget);
}

void Engine::Impl::run_layers(std::span<const Segment> segments,
                              std::span<const Token> tokens) const {
  executor->pool().use(tokens.size() > segments.size() ? threads_batch : threads);
  forward(*executor, model.config, model.weights, embed_scale, segments, tokens, *state);
}

void Engine::Impl::read_logits(
    std::span<const int64_t> rows,
    const std::function<void(size_t, std::span<const float>)>& fn) const {
  const Config& config = model.config;
  const int64_t d = config.hidden_size, v = config.vocab_size;
  for (size_t done = 0; done < rows.size();) {
    // Bring the next few wanted rows together: they are ascending, so nothing is overwritten early.
    const size_t count = std::min<size_t>(kLogitRows, rows.size() - done);
    for (size_t i = 0; i < count; ++i)
      std::copy_n(state->h.row(rows[done + i]), d, state->x.row(static_cast<int64_t>(i)));
    const Matrix h = state->x.rows_from(0, static_cast<int64_t>(count));
    const Matrix out{executor->logits(h.rows * v), h.rows, v};
    head(*executor, config, model.weights, h, out);
    for (size_t i = 0; i < count; ++i)
      fn(done + i, {out.row(static_cast<int64_t>(i)), static_cast<size_t>(v)});
    done += count;
  }
}

bool Engine::Impl::take_part(const StepItem& item, int64_t& offset, int64_t& room) const {
  const auto left = item.tokens.subspan(static_cast<size_t>(offset));
  const auto part = left.first(std::min(static_cast<size_t>(room), left.size()));
  const bool last = part.size() == left.size();
  const bool whole = last && std::ssize(part) + std::ssize(item.block) <= room;
  const auto block = whole ? item.block : std::span<const Token>();
  if (!part.empty() || !block.empty())
    step.parts.push_back({.session = item.session->impl_.get(),
                          .tokens = part,
                          .last = last && !part.empty(),
                          .label = item.label,
                          .offset = offset,
                          .item = &item,
                          .block = block});
  offset += std::ssize(part);
  room = whole ? room - std::ssize(part) - std::ssize(block) : 0;
  return whole;
}

void Engine::step(std::span<const StepItem> items, const Watch& watch) const {
  const std::lock_guard lock(impl_->step_mutex);
  const int64_t most = impl_->state->max_rows();
  int64_t total = 0, done = 0;
  for (const StepItem& item : items) {
    LAPIDARY_CHECK(item.session->impl_->engine.get() == this, "a session of another engine");
    item.session->impl_->check_append(item.tokens, item.label, item.block);
    if (std::ssize(item.block) > std::min(most, kMaxBlock))
      fail_usage("a block of {} tokens, expected at most {}", item.block.size(),
                 std::min(most, kMaxBlock));
    total += std::ssize(item.tokens) + std::ssize(item.block);
  }
  int64_t offset = 0;
  for (size_t next = 0; done < total;) {
    watch.throw_if_stopped();
    impl_->step.parts.clear();
    for (int64_t room = most; next < items.size() && room > 0;)
      if (impl_->take_part(items[next], offset, room)) offset = 0, ++next;
    done += impl_->run_parts();
    watch.report(done, total);
  }
}

std::vector<float> Engine::embed(std::span<const Token> tokens, int layer) const {
  const Config& config = impl_->model.config;
  if (layer < 1 || layer > config.num_hidden_layers)
    fail_usage("layer: {} given, expected 1 to {}", layer, config.num_hidden_layers);
  if (tokens.size() < 2) fail("a text of {} tokens says nothing", tokens.size());
  Session session(shared_from_this());
  std::vector<double> sum(static_cast<size_t>(config.hidden_size));
  session.set_tap([&](const Activation& a) {
    if (a.layer != layer - 1 || a.point != "hook_resid_post") return;
    for (int64_t row = a.position == 0 ? 1 : 0; row < a.rows; ++row) {
      const std::span x(a.row(row), sum.size());
      double squares = 0;
      for (const float value : x) squares += double{value} * value;
      const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += scale * x[i];
    }
  });
  session.impl_->check_append(tokens);
  const std::lock_guard lock(impl_->step_mutex);
  while (!tokens.empty()) {  // a step whose logits nobody wants
    const auto part =
        tokens.first(std::min(tokens.size(), static_cast<size_t>(impl_->state->max_rows())));
    impl_->step.parts.assign(1, {session.impl_.get(), part, false, 0});
    impl_->run_parts();
    tokens = tokens.subspan(part.size());
  }
  std::vector<float> mean(sum.size());
  const auto count = static_cast<double>(session.length() - 1);
  for (size_t i = 0; i < mean.size(); ++i) mean[i] = static_cast<float>(sum[i] / count);
  return mean;
}

std::vector<float> Engine::mean_hidden_state(std::span<const Token> tokens) const {
  const Config& config = impl_->model.config;
  if (!config.use_bidirectional_attention)
    fail("{}: field 'use_bidirectional_attention': expected true, of a model that embeds texts",
         (impl_->folder / "config.json").string());
  const int64_t most = config.max_position_embeddings;
  if (tokens.empty() || std::ssize(tokens) > most)
    fail("a text of {} tokens, the model was made for 1 to {}", tokens.size(), most);
  check_ids(tokens, config.vocab_size);
  const std::lock_guard lock(impl_->step_mutex);
  const Segment whole{nullptr, std::ssize(tokens)};
  impl_->run_layers({&whole, 1}, tokens);
  std::vector<float> mean(static_cast<size_t>(config.hidden_size));
  for (int64_t i = 0; i < std::ssize(mean); ++i) {
    double sum = 0;
    for (int64_t row = 0; row < whole.rows; ++row) sum += double{impl_->state->h.row(row)[i]};
    mean[static_cast<size_t>(i)] = static_cast<float>(sum / static_cast<double>(whole.rows));
  }
  return mean;
}

Engine::Impl::TapScope::TapScope(State& state, std::span<const Part> parts) : state_(state) {
  if (std::ranges::none_of(parts, [](const Part& part) { return bool{part.session->tap}; })) return;
  state_.observer = [parts](int layer, std::string_view point, Matrix values) {
    int64_t row = 0;
    for (const Part& part : parts) {
      const int64_t rows = part.rows();
      if (part.session->tap)
        part.session->tap({.point = point,
                           .layer = layer,
                           .position = part.session->length(part.label),
                           .rows = rows,
                           .cols = values.cols,
                           .values = values.row(row)});
      row += rows;
    }
  };
}

int64_t Engine::Impl::run_parts() const {
  auto& [parts, segments, tokens, rows, wanted] = step;
  segments.clear();
  tokens.clear();
  rows.clear();
  wanted.clear();
  for (const Part& part : parts) {
    const int64_t first = std::ssize(tokens), count = std::ssize(part.tokens);
    const auto want = [&](int64_t row, int64_t index, bool in_block) {
      rows.push_back(first + row);
      wanted.push_back({&part, index, in_block});
    };
    segments.push_back(part.session->segment(part.tokens, part.label, part.block));
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    tokens.insert(tokens.end(), part.block.begin(), part.block.end());
    if (count > 0) part.session->logits.clear();
    const bool all = part.item != nullptr && part.item->on_token;
    for (int64_t i = all ? 0 : count - 1; i < count; ++i)
      if (all || part.last) want(i, i, false);
    if (part.block.empty()) continue;
    for (const int64_t i : part.item->block_rows) want(count + i, i, true);
  }
  {
    const TapScope taps(*state, parts);
    run_layers(segments, tokens);
  }
  // Before anybody sees logits: one who throws leaves sessions that have what their caches have.
  for (const Part& part : parts) part.session->appended(part.tokens, part.label);
  read_logits(rows, [this](size_t i, std::span<const float> row) {
    const auto& [part, index, in_block] = step.wanted[i];
    if (in_block) return part->item->on_block(index, row);
    if (part->item != nullptr && part->item->on_token)
      part->item->on_token(part->offset + index, row);
    if (part->last && index + 1 == std::ssize(part->tokens))
      part->session->logits.assign(row.begin(), row.end());
  });
  return std::ssize(tokens);
}

}  // namespace lapidary
