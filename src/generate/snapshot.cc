// A session on disk: one safetensors file.
//
//   __metadata__   format "lapidary-session", version "1", fingerprint (16 hex digits), length
//   tokens         I32 [length]
//   layers.{i}     BF16 or F32 [blocks, 2, kv_heads, kKvBlock, head_dim], or for codes U8 with the
//                  bytes of a row (kernels/kv_rows.h) instead of head_dim: the layer's last blocks
//                  of positions, keys then values, rotary embedding applied; rows past the length
//                  are 0
//
// A sliding layer has only the blocks that its window still sees; they end where the tokens end.
#include <cstring>
#include <utility>

#include "lapidary/session.h"

#include "base/fail.h"
#include "generate/engine_impl.h"
#include "io/safetensors.h"
#include "kernels/kv_rows.h"

namespace lapidary {

namespace {

constexpr const char* kFormat = "lapidary-session";
constexpr const char* kVersion = "1";

std::string layer_name(int layer) {
  return fmt::format("layers.{}", layer);
}

DType layer_dtype(KvType type) {
  return type == KvType::kF32 ? DType::kF32 : type == KvType::kBF16 ? DType::kBF16 : DType::kU8;
}

std::vector<int64_t> layer_shape(const Config& c, KvType type, int64_t blocks) {
  return {blocks, 2, c.num_key_value_heads, kKvBlock,
          kv_row_bytes(type, c.head_dim) / size_of(layer_dtype(type))};
}

// Writes a block with the rows from `rows` on as zeros.
void write_block(SafetensorsWriter& writer, const std::byte* block, int64_t heads,
                 int64_t row_bytes, int64_t rows) {
  const std::vector<std::byte> zeros(static_cast<size_t>((kKvBlock - rows) * row_bytes));
  for (int64_t h = 0; h < heads; ++h) {
    writer.write({block + h * kKvBlock * row_bytes, static_cast<size_t>(rows * row_bytes)});
    writer.write(zeros);
  }
}

const TensorView& expect_tensor(const SafetensorsFile& file, const std::string& name, DType dtype) {
  const TensorView* tensor = file.find(name);
  if (tensor == nullptr) fail("{}: tensor {} is missing", file.path().string(), name);
  if (tensor->dtype != dtype)
    fail("{}: tensor {}: dtype {}, expected {}", file.path().string(), name, name_of(tensor->dtype),
         name_of(dtype));
  return *tensor;
}

void expect_metadata(const SafetensorsFile& file, const std::string& key,
                     const std::string& expected, const char* otherwise) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end() || it->second != expected)
    fail("{}: {} ({} is '{}', expected '{}')", file.path().string(), otherwise, key,
         it == file.metadata().end() ? "" : it->second, expected);
}

}  // namespace

void Session::snapshot(const std::filesystem::path& path) const {
  LAPIDARY_CHECK(!impl_->labelled && !impl_->other_layer_types, "an experiment is not written");
  const Config& config = engine().config();
  const KvCache& cache = impl_->cache;
  const int64_t row_bytes = kv_row_bytes(cache.type(), config.head_dim);
  std::vector<TensorDeclaration> declarations{{"tokens", DType::kI32, {length()}}};
  for (int i = 0; i < config.num_hidden_layers; ++i)
    declarations.push_back({layer_name(i), layer_dtype(cache.type()),
                            layer_shape(config, cache.type(), std::ssize(cache.blocks(i)))});
  SafetensorsWriter writer(path, std::move(declarations),
                           {{"format", kFormat},
                            {"version", kVersion},
                            {"fingerprint", fmt::format("{:016x}", engine().fingerprint())},
                            {"length", std::to_string(length())}});
  writer.write(std::as_bytes(tokens()));
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const auto blocks = cache.blocks(i);
    for (size_t b = 0; b < blocks.size(); ++b) {
      const int64_t start = (cache.first_block(i) + static_cast<int64_t>(b)) * kKvBlock;
      const int64_t rows = std::min<int64_t>(kKvBlock, length() - start);
      write_block(writer, blocks[b], 2 * config.num_key_value_heads, row_bytes, rows);
    }
  }
  writer.finish();
}

Session Session::restore(std::shared_ptr<const Engine> engine, const std::filesystem::path& path,
                         int64_t context) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  expect_metadata(file, "format", kFormat, "not a saved session");
  expect_metadata(file, "version", kVersion, "saved by another version");
  expect_metadata(file, "fingerprint", fmt::format("{:016x}", engine->fingerprint()),
                  "saved with another model");
  Session session(std::move(engine), context);
  const Config& config = session.engine().config();
  KvCache& cache = session.impl_->cache;

  const TensorView& tokens = expect_tensor(file, "tokens", DType::kI32);
  const int64_t length = tokens.elements();
  expect_metadata(file, "length", std::to_string(length), "damaged");
  std::vector<Token> ids(static_cast<size_t>(length));
  if (length > 0) std::memcpy(ids.data(), tokens.bytes.data(), tokens.bytes.size());
  session.impl_->check_append(ids);

  const int64_t end_block = (length + kKvBlock - 1) / kKvBlock;
  std::vector<const TensorView*> layers;
  std::vector<int64_t> first_blocks;
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const TensorView& layer = expect_tensor(file, layer_name(i), layer_dtype(cache.type()));
    const int64_t blocks = layer.shape.empty() ? -1 : layer.shape[0];
    const int64_t needed = end_block - first_needed_block(config, i, length);
    if (layer.shape != layer_shape(config, cache.type(), blocks) || blocks > end_block ||
        blocks < needed)
      fail("{}: tensor {}: shape {}, expected {} with {} to {} blocks", path.string(),
           layer_name(i), shape_string(layer.shape),
           shape_string(layer_shape(config, cache.type(), end_block)), needed, end_block);
    layers.push_back(&layer);
    first_blocks.push_back(end_block - blocks);
  }
  cache.reset(length, first_blocks);
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const std::byte* from = layers[static_cast<size_t>(i)]->bytes.data();
    for (int64_t b = first_blocks[static_cast<size_t>(i)]; b < end_block; ++b) {
      const auto to = cache.writable_block(i, b);
      std::memcpy(to.data(), from, to.size());
      from += to.size();
    }
  }
  session.impl_->tokens = std::move(ids);
  return session;
}

}  // namespace lapidary
