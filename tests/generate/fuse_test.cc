// Adapters made part of models: what is stored, what is lost, what is refused.
#include "lapidary/fuse.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/decoding.h"
#include "lapidary/session.h"
#include "lapidary/synth.h"

#include "base/json.h"
#include "base/rng.h"
#include "base/statistics.h"
#include "gemma/adapter_file.h"
#include "gemma/load.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kAdapters = kGolden / "adapters";

// Every tensor of a folder as bytes.
std::map<std::string, std::vector<std::byte>> tensors_of(const fs::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  std::map<std::string, std::vector<std::byte>> all;
  for (const NamedTensor& t : checkpoint.tensors())
    all[t.name].assign(t.view.bytes.begin(), t.view.bytes.end());
  return all;
}

std::vector<float> logits(const fs::path& model, std::vector<AdapterUse> adapters = {}) {
  Session session(Engine::load(
      model, {.compute = Compute::kExact, .threads = 1, .adapters = std::move(adapters)}));
  std::vector<float> all;
  session.score(
      std::vector<Token>{2, 17, 5, 90, 41, 8, 3, 150},
      [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); });
  return all;
}

// An adapter of rank 4 for some kinds of a model's matrices, written as PEFT does.
void make_adapter(const fs::path& model, const fs::path& folder, float size,
                  const std::string& kind = "",
                  const std::optional<SetBlockTraining>& set_block = {}) {
  const Config config = read_config(model);
  AdapterFile file;
  file.adapter.set_block = set_block;
  uint64_t stream = 0;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    for (const std::string& name : adaptable_matrices()) {
      if (name.find(kind) == std::string::npos) continue;
      AdapterMatrix m{.target = fmt::format("model.layers.{}.{}", layer, name), .rank = 4};
      const auto [rows, cols] = adaptable_shape(config, name);
      m.a.resize(static_cast<size_t>(4 * cols));
      m.b.resize(static_cast<size_t>(4 * rows));
      for (auto* values : {&m.a, &m.b}) {
        const CounterRng rng(1, stream++);
        for (size_t i = 0; i < values->size(); ++i) (*values)[i] = size * rng.normal(i);
      }
      file.adapter.matrices.push_back(std::move(m));
    }
  fs::create_directories(folder);
  write_peft_adapter(file, folder);
}

TEST(Fuse, DenseWeightsTakeTheUpdateInTheirType) {
  ScratchFolder folder;
  const fs::path f32 = folder.path() / "f32", out = folder.path() / "out";
  convert_folder(kGolden / "gemma3-v5", f32, {.dtype = "f32", .threads = 1});
  const AdapterUse plain{kAdapters / "plain", 0.5}, other{kAdapters / "other"};
  const Fusion exact = fuse(f32, out, {.adapters = {plain, other}, .threads = 1});
  EXPECT_EQ(exact.matrices.size(), 49u);
  EXPECT_LT(exact.lost, 1e-6);
  EXPECT_GT(exact.update, 0.01);
  EXPECT_LT(relative_error(logits(out), logits(f32, {plain, other})), 1e-5);

  const Fusion rounded =
      fuse(kGolden / "gemma3-v5", folder.path() / "bf16", {.adapters = {plain}, .threads = 1});
  EXPECT_GT(rounded.lost, 1e-4);  // 2^-9 of weights that are a few times the update
  EXPECT_LT(rounded.lost, 0.1);
  EXPECT_LT(rounded.conversion.check->logit_error, rounded.conversion.check->logit_error_limit);
  const auto before = tensors_of(kGolden / "gemma3-v5"), after = tensors_of(folder.path() / "bf16");
  ASSERT_EQ(before.size(), after.size());
  int same = 0;
  for (const auto& [name, bytes] : before) same += after.at(name) == bytes;
  EXPECT_EQ(same, std::ssize(before) - 49);
}

TEST(Fuse, WhatTheAdapterLearntOfSetBlocksIsSaidOfTheModel) {
  ScratchFolder folder;
  const fs::path model = kGolden / "gemma3-v5", adapter = folder.path() / "adapter";
  make_adapter(model, adapter, 0.05f, "", SetBlockTraining{7, 2, 16});
  EXPECT_FALSE(trained_for_blocks(*Engine::load(model, {.threads = 1})));
  const auto beside = Engine::load(model, {.threads = 1, .adapters = {{adapter, 1}}});
  EXPECT_TRUE(trained_for_blocks(*beside));
  EXPECT_EQ(mask_token(*beside, {}), 7);
  EXPECT_EQ(mask_token(*beside, {.mask = 9}), 9);
  fuse(model, folder.path() / "fused", {.adapters = {{adapter, 1}}, .threads = 1});
  convert_folder(folder.path() / "fused", folder.path() / "f32", {.dtype = "f32", .threads = 1});
  for (const char* name : {"fused", "f32"}) {
    const auto engine = Engine::load(folder.path() / name, {.threads = 1});
    EXPECT_TRUE(trained_for_blocks(*engine)) << name;
    EXPECT_EQ(mask_token(*engine, {}), 7) << name;
  }
}

// A row gets another length, of which half is asked for, beside a plain update.
TEST(Fuse, DoraBesidePlain) {
  ScratchFolder folder;
  const fs::path f32 = folder.path() / "f32", out = folder.path() / "out";
  convert_folder(kGolden / "gemma3-v5", f32, {.dtype = "f32", .threads = 1});
  const AdapterUse dora{kAdapters / "dora", 0.5}, plain{kAdapters / "plain"};
  fuse(f32, out, {.adapters = {dora, plain}, .threads = 1});
  EXPECT_LT(relative_error(logits(out), logits(f32, {dora, plain})), 1e-5);
  EXPECT_GT(relative_error(logits(out), logits(f32, {plain})), 1e-2);
}

TEST(Fuse, QuantisedWeightsKeepTheirFormat) {
  for (const char* name : {"mlx-4bit-g64", "mlx-4bit-g32-mixed", "mlx-8bit-g128"}) {
    ScratchFolder folder;
    const fs::path model = kGolden / name, out = folder.path() / "out";
    make_adapter(model, folder.path() / "a", 0.1F, "v_proj");
    const AdapterUse use{folder.path() / "a"};
    const Fusion fusion = fuse(model, out, {.adapters = {use}, .threads = 2});
    EXPECT_GT(fusion.lost, 0) << name;
    EXPECT_LT(fusion.lost, 1) << name;
    const Model before = load_model(model), after = load_model(out);
    const auto a = list_matrices(before), b = list_matrices(after);
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i]->bits, b[i]->bits) << name;
      EXPECT_EQ(a[i]->group, b[i]->group) << name;
    }
    for (const auto& [tensor, bytes] : tensors_of(model)) {
      if (tensor.find("v_proj") != std::string::npos) continue;
      EXPECT_EQ(bytes, tensors_of(out).at(tensor)) << tensor;
    }
    // Nearer to what was asked for than the model is.
    const auto wanted = logits(model, {use});
    EXPECT_LT(relative_error(logits(out), wanted), relative_error(logits(model), wanted)) << name;
  }
}

TEST(Fuse, DequantisesWhenAsked) {
  ScratchFolder folder;
  const fs::path model = kGolden / "mlx-4bit-g64", out = folder.path() / "out";
  const AdapterUse use{kAdapters / "mlx"};
  const Fusion dense = fuse(model, out, {.adapters = {use}, .dequantize = true, .threads = 1});
  const Fusion codes = fuse(model, folder.path() / "codes", {.adapters = {use}, .threads = 1});
  EXPECT_LT(dense.lost, codes.lost / 4);
  EXPECT_FALSE(read_json_file(out / "config.json").contains("quantization"));
  EXPECT_LT(relative_error(logits(out), logits(model, {use})), 0.02);
}

TEST(Fuse, OfAGgufFileIsAFolder) {
  ScratchFolder folder;
  const fs::path gguf = folder.path() / "x.gguf", out = folder.path() / "out";
  const AdapterUse use{kAdapters / "plain"};
  export_gguf(kGolden / "gemma3-v5", gguf, {.type = "f32", .threads = 1});
  const Fusion fusion = fuse(gguf, out, {.adapters = {use}, .threads = 1});
  EXPECT_LT(fusion.lost, 1e-6);
  EXPECT_LT(relative_error(logits(out), logits(gguf, {use})), 1e-5);
  export_gguf(kGolden / "gemma3-v5", gguf, {.type = "f16", .overwrite = true, .threads = 1});
  fuse(gguf, out, {.adapters = {use}, .overwrite = true, .threads = 1});
}

TEST(Fuse, BytesDoNotDependOnThreads) {
  ScratchFolder folder;
  for (const int threads : {1, 3})
    fuse(kGolden / "mlx-4bit-g64", folder.path() / std::to_string(threads),
         {.adapters = {{kAdapters / "mlx"}}, .threads = threads});
  EXPECT_EQ(tensors_of(folder.path() / "1"), tensors_of(folder.path() / "3"));
}

TEST(Fuse, AnUpdateThatIsRoundedAwayIsAnError) {
  ScratchFolder folder;
  const fs::path out = folder.path() / "out";
  const auto error = [&](const fs::path& model, const AdapterUse& use) {
    return error_of([&] { fuse(model, out, {.adapters = {use}, .threads = 1}); },
                    folder.path().string());
  };
  const std::string start = "the result failed its check: the fused weights are those of the model";
  EXPECT_TRUE(error(kGolden / "gemma3-v5", {kAdapters / "plain", 1e-7}).starts_with(start));
  EXPECT_TRUE(error(kGolden / "gemma3-v5", {kAdapters / "plain", 0}).starts_with(start));
  EXPECT_FALSE(fs::exists(out));
}

TEST(Fuse, WhatCannotBe) {
  ScratchFolder folder;
  const fs::path model = kGolden / "gemma3-v5", out = folder.path() / "out";
  const AdapterUse plain{kAdapters / "plain"};
  EXPECT_EQ(error_of([&] { fuse(model, out, {}); }), "no adapter given to fuse");
  EXPECT_TRUE(error_of([&] { fuse(kGolden / "gemma2-gqa", out, {.adapters = {plain}}); },
                       kAdapters.string())
                  .starts_with("/plain: the adapter does not fit this model: "));
  fs::create_directories(out);
  EXPECT_EQ(error_of([&] { fuse(model, out, {.adapters = {plain}}); }, folder.path().string()),
            "/out: is there already");
  EXPECT_NE(
      error_of([&] { fuse(kGolden / "small.gguf", folder.path() / "y", {.adapters = {plain}}); }),
      "no error");
}

}  // namespace
}  // namespace lapidary
