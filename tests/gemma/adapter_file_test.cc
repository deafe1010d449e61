// Adapters in files: those that PEFT and MLX-LM wrote, our own, and broken ones.
#include "gemma/adapter_file.h"

#include <cmath>
#include <functional>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/float16.h"
#include "base/json.h"
#include "gemma/load.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kAdapters = kGolden / "adapters";

const AdapterMatrix& matrix(const AdapterFile& file, const std::string& target) {
  for (const AdapterMatrix& m : file.adapter.matrices)
    if (m.target == target) return m;
  throw std::runtime_error("no " + target);
}

// What an adapter adds to a matrix, [N, K].
std::vector<double> delta(const AdapterMatrix& m) {
  const int64_t cols = std::ssize(m.a) / m.rank, rows = std::ssize(m.b) / m.rank;
  std::vector<double> sum(static_cast<size_t>(rows * cols));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < m.rank; ++k)
      for (int64_t j = 0; j < cols; ++j)
        sum[static_cast<size_t>(i * cols + j)] += m.scale *
                                                  m.b[static_cast<size_t>(i * m.rank + k)] *
                                                  m.a[static_cast<size_t>(k * cols + j)];
  return sum;
}

void expect_same(const AdapterFile& a, const AdapterFile& b) {
  ASSERT_EQ(a.adapter.matrices.size(), b.adapter.matrices.size());
  for (size_t i = 0; i < a.adapter.matrices.size(); ++i) {
    const AdapterMatrix &x = a.adapter.matrices[i], &y = b.adapter.matrices[i];
    EXPECT_EQ(x.target, y.target);
    EXPECT_EQ(x.scale, y.scale) << x.target;
    EXPECT_EQ(x.a, y.a) << x.target;
    EXPECT_EQ(x.b, y.b) << x.target;
    EXPECT_EQ(x.magnitude, y.magnitude) << x.target;
  }
}

void copy_adapter(const std::string& name, const ScratchFolder& to) {
  fs::copy(kAdapters / name, to.path(),
           fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

TEST(AdapterFiles, PeftsRanksAndScales) {
  const AdapterFile plain = load_adapter(kAdapters / "plain");
  EXPECT_EQ(plain.format, AdapterFormat::kPeft);
  EXPECT_EQ(plain.adapter.matrices.size(), 7u * 7);
  EXPECT_EQ(plain.adapter.matrices[0].target, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(plain.adapter.matrices[0].scale, 2);
  EXPECT_EQ(plain.base_model, "gemma3-v5");
  const AdapterFile patterns = load_adapter(kAdapters / "patterns");
  EXPECT_EQ(patterns.adapter.matrices.size(), 3u * 4);
  const auto expect = [&](const char* target, int64_t rank, double alpha) {
    const AdapterMatrix& m = matrix(patterns, target);
    EXPECT_EQ(m.rank, rank) << target;
    EXPECT_DOUBLE_EQ(m.scale, alpha / std::sqrt(static_cast<double>(rank))) << target;
  };
  expect("model.layers.0.self_attn.v_proj", 4, 3);
  expect("model.layers.1.self_attn.o_proj", 5, 6);
  expect("model.layers.2.mlp.down_proj", 2, 6);
  expect("model.layers.4.mlp.down_proj", 4, 6);
}

TEST(AdapterFiles, MlxsAreTheTransposes) {
  const AdapterFile file = load_adapter(kAdapters / "mlx");
  EXPECT_EQ(file.format, AdapterFormat::kMlx);
  const SafetensorsFile stored = SafetensorsFile::open(kAdapters / "mlx/adapters.safetensors");
  for (const AdapterMatrix& m : file.adapter.matrices) {
    const TensorView& a = *stored.find(m.target + ".lora_a");
    EXPECT_EQ(m.scale, 1.5);
    EXPECT_EQ(m.rank, a.shape[1]);
    EXPECT_EQ(m.a[1], float_at(a.bytes.data(), a.dtype, m.rank)) << m.target;
  }
}

TEST(AdapterFiles, PrefixesOfEveryTree) {
  const AdapterFile multimodal = load_adapter(kAdapters / "multimodal");
  EXPECT_TRUE(multimodal.multimodal);
  EXPECT_EQ(multimodal.adapter.matrices[0].target, "model.layers.0.self_attn.q_proj");
  ScratchFolder to;
  write_mlx_adapter(multimodal, to.path());
  expect_same(load_adapter(to.path()), multimodal);
  EXPECT_NE(to.read("adapters.safetensors").find("\"language_model.model.layers.0."),
            std::string::npos);
  ScratchFolder back;
  write_peft_adapter(load_adapter(to.path()), back.path());
  EXPECT_NE(back.read("adapter_model.safetensors")
                .find("\"base_model.model.model.language_model.layers.0."),
            std::string::npos);
}

// Written, read and written again in each format, an adapter keeps every bit.
TEST(AdapterFiles, RoundTripsLoseNothing) {
  for (const char* name : {"plain", "mlx", "multimodal", "dora", "mlx-dora"}) {
    const AdapterFile file = load_adapter(kAdapters / name);
    EXPECT_EQ(summary_of(file).dora, std::string_view(name).ends_with("dora"));
    ScratchFolder peft, mlx, again;
    write_peft_adapter(file, peft.path());
    expect_same(load_adapter(peft.path()), file);
    write_mlx_adapter(load_adapter(peft.path()), mlx.path());
    expect_same(load_adapter(mlx.path()), file);
    write_peft_adapter(load_adapter(mlx.path()), again.path());
    EXPECT_EQ(again.read("adapter_model.safetensors"), peft.read("adapter_model.safetensors"));
    if (file.multimodal || has_magnitudes(file.adapter)) continue;
    write_gguf_adapter(file, read_config(kGolden / "gemma3-v5"), again.path() / "x.gguf");
    expect_same(load_adapter(again.path() / "x.gguf"), file);
  }
}

// One scale and one rank for all matrices: factors are widened and multiplied, the product stays.
TEST(AdapterFiles, ScalesOfTheirOwnGoIntoTheFactors) {
  const AdapterFile file = load_adapter(kAdapters / "patterns");
  ScratchFolder to;
  write_mlx_adapter(file, to.path());
  write_gguf_adapter(file, read_config(kGolden / "gemma3-v5"), to.path() / "x.gguf");
  for (const AdapterFile& other : {load_adapter(to.path()), load_adapter(to.path() / "x.gguf")})
    for (const AdapterMatrix& m : file.adapter.matrices) {
      const std::vector<double> want = delta(m), got = delta(matrix(other, m.target));
      ASSERT_EQ(want.size(), got.size());
      for (size_t i = 0; i < want.size(); ++i)  // 3 roundings of a product, at most 5 products
        ASSERT_NEAR(got[i], want[i], 1e-5) << m.target;
    }
  ScratchFolder peft;
  write_peft_adapter(file, peft.path());
  expect_same(load_adapter(peft.path()), file);
}

TEST(AdapterFiles, KeepTheirType) {
  AdapterFile file = load_adapter(kAdapters / "plain");
  for (AdapterMatrix& m : file.adapter.matrices)
    for (auto* values : {&m.a, &m.b})
      for (float& x : *values) x = rounded_to(DType::kBF16, x);
  file.dtype = DType::kBF16;
  ScratchFolder to;
  write_mlx_adapter(file, to.path());
  const AdapterFile back = load_adapter(to.path());
  EXPECT_EQ(back.dtype, DType::kBF16);
  expect_same(back, file);
}

TEST(AdapterFiles, SayThatTheyWereTrainedOnSetBlocks) {
  AdapterFile file = load_adapter(kAdapters / "plain");
  EXPECT_EQ(file.adapter.set_block, std::nullopt);
  file.adapter.set_block = {.mask_token_id = 4, .block_min = 2, .block_max = 8};
  for (const AdapterFormat format : {AdapterFormat::kPeft, AdapterFormat::kMlx}) {
    ScratchFolder to;
    save_adapter(file, format, to.path() / "x", false);
    EXPECT_EQ(load_adapter(to.path() / "x").adapter.set_block, file.adapter.set_block)
        << name_of(format);
    const fs::path config = to.path() / "x/adapter_config.json";
    OrderedJson json = read_ordered_json_file(config);
    json["set_block"]["block_max"] = 1;
    to.write("x/adapter_config.json", json.dump());
    EXPECT_EQ(error_of([&] { load_adapter(to.path() / "x"); }, to.path().string()),
              "/x/adapter_config.json: set_block: field 'block_max': is no size of blocks from "
              "block_min on");
  }
  ScratchFolder to;
  const Config config = read_config(kGolden / "gemma3-v5");
  save_adapter(file, AdapterFormat::kGguf, to.path() / "x.gguf", false, &config);
  EXPECT_EQ(load_adapter(to.path() / "x.gguf").adapter.set_block, file.adapter.set_block);
}

TEST(AdapterFiles, AreReplacedOnlyWhenAsked) {
  ScratchFolder to;
  const fs::path out = to.path() / "x";
  const AdapterFile file = load_adapter(kAdapters / "plain");
  save_adapter(file, AdapterFormat::kPeft, out, false);
  EXPECT_EQ(
      error_of([&] { save_adapter(file, AdapterFormat::kMlx, out, false); }, to.path().string()),
      "/x: is there already");
  save_adapter(file, AdapterFormat::kMlx, out, true);
  EXPECT_EQ(load_adapter(out).format, AdapterFormat::kMlx);
  to.write("file", "mine");
  EXPECT_EQ(error_of([&] { save_adapter(file, AdapterFormat::kMlx, to.path(), true); },
                     to.path().string()),
            ": is no adapter, and not replaced");
  EXPECT_EQ(to.names(), (std::vector<std::string>{"file", "x"}));
}

TEST(AdapterFiles, OfAnotherBaseAreRefusedByName) {
  Model model = load_model(kGolden / "gemma2-gqa");
  const std::string error =
      error_of([&] { load_and_attach(kAdapters / "plain", 1, model.config, model.weights); },
               kAdapters.string());
  EXPECT_TRUE(error.starts_with("/plain: the adapter does not fit this model: model.layers.0."))
      << error;
  EXPECT_NE(error.find("made for a matrix [64, 48], the model's is ["), std::string::npos);
  EXPECT_NE(error.find("model.layers.6.mlp.up_proj: the model has no such matrix"),
            std::string::npos)
      << error;
}

// ---- broken ones

struct BrokenConfig {
  const char* adapter;
  const char* patch;  // merged into adapter_config.json
  const char* error;
};

TEST(AdapterFiles, ConfigurationsThatCannotBe) {
  const std::string kPlain = "/adapter_config.json: field ";
  const BrokenConfig cases[] = {
      {"plain", R"({"peft_type": "LOHA"})", "'peft_type': 'LOHA', expected \"LORA\""},
      {"plain", R"({"use_qalora": true})", "'use_qalora': true, expected LoRA or DoRA"},
      {"plain", R"({"bias": "all"})", "'bias': 'all', expected \"none\""},
      {"plain", R"({"modules_to_save": ["lm_head"]})",
       "'modules_to_save': [\"lm_head\"], expected plain LoRA"},
      {"plain", R"({"layer_replication": [[0, 2]]})",
       "'layer_replication': [[0,2]], expected plain LoRA"},
      {"plain", R"({"init_lora_weights": "pissa"})",
       "'init_lora_weights': 'pissa', which changes the base"},
      {"plain", R"({"rank_pattern": {"(": 2}})", "'rank_pattern.(': expected a regular expression"},
      {"plain", R"({"alpha_pattern": {"q_proj": "x"}})",
       "'alpha_pattern.q_proj': expected a number"},
      {"plain", R"({"lora_alpha": "8"})", "'lora_alpha': expected a number, found \"8\""},
      {"mlx", R"({"fine_tune_type": "full"})",
       "'fine_tune_type': 'full', expected \"lora\" or \"dora\""},
  };
  for (const BrokenConfig& c : cases) {
    ScratchFolder folder;
    copy_adapter(c.adapter, folder);
    Json config = Json::parse(folder.read("adapter_config.json"));
    config.merge_patch(Json::parse(c.patch));
    folder.write("adapter_config.json", config.dump());
    EXPECT_EQ(error_of([&] { load_adapter(folder.path()); }, folder.path().string()),
              kPlain + c.error);
  }
  ScratchFolder folder;
  copy_adapter("mlx", folder);
  folder.write("adapter_config.json", R"({"lora_parameters": {"rank": 4}})");
  EXPECT_EQ(error_of([&] { load_adapter(folder.path()); }, folder.path().string()),
            "/adapter_config.json: lora_parameters: field 'scale': missing");
}

// Rewrites the factors of an adapter through `change`, on names and shapes; data are zeros but for
// what it sets.
struct StoredTensor {
  TensorDeclaration declaration;
  std::vector<float> values;
};
using Stored = std::vector<StoredTensor>;
void rewrite(const ScratchFolder& folder, const char* file,
             const std::function<void(Stored&)>& change) {
  Stored tensors;
  {
    const SafetensorsFile stored = SafetensorsFile::open(folder.path() / file);
    for (const NamedTensor& t : stored.tensors()) {
      StoredTensor tensor{{t.name, DType::kF32, t.view.shape}, {}};
      for (int64_t i = 0; i < t.view.elements(); ++i)
        tensor.values.push_back(float_at(t.view.bytes.data(), t.view.dtype, i));
      tensors.push_back(std::move(tensor));
    }
  }
  change(tensors);
  std::vector<TensorDeclaration> declarations;
  for (const StoredTensor& t : tensors) declarations.push_back(t.declaration);
  SafetensorsWriter writer(folder.path() / file, declarations);
  for (const StoredTensor& t : tensors) writer.write(std::as_bytes(std::span(t.values)));
  writer.finish();
}

TEST(AdapterFiles, FactorsThatCannotBe) {
  constexpr const char* kFile = "adapter_model.safetensors";
  const std::string kName = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
  const auto fault = [&](const std::function<void(Stored&)>& change) {
    ScratchFolder folder;
    copy_adapter("plain", folder);
    rewrite(folder, kFile, change);
    std::string error = error_of([&] { load_adapter(folder.path()); }, folder.path().string());
    const std::string start = "/adapter_model.safetensors: ";
    EXPECT_TRUE(error.starts_with(start)) << error;
    return error.substr(std::min(start.size(), error.size()));
  };
  const auto renamed = [&](const std::string& name) {
    return fault([&](Stored& t) { t[0].declaration.name = name; });
  };
  const std::string first = "tensor '" + kName + "': ";
  EXPECT_EQ(fault([](Stored& t) { t.clear(); }), "no tensors in it");
  EXPECT_EQ(fault([](Stored& t) { t.erase(t.begin()); }),
            "tensor 'base_model.model.model.layers.0.mlp.down_proj.lora_B.weight': factor A of the "
            "same matrix is missing");
  EXPECT_EQ(fault([](Stored& t) { t[0].values[3] = NAN; }), first + "value 3 is not finite");
  EXPECT_EQ(fault([](Stored& t) { t[0].declaration.shape = {256}; }),
            first + "shape [256], expected a matrix");
  EXPECT_EQ(fault([](Stored& t) {
              t[0].declaration.shape = {2, 128};
            }),
            "tensor 'base_model.model.model.layers.0.mlp.down_proj.lora_B.weight': has rank 4, but "
            "'" +
                kName + "' has 2");
  EXPECT_EQ(renamed("base_model.model.model.embed_tokens.lora_embedding_A"),
            "tensor 'base_model.model.model.embed_tokens.lora_embedding_A': adapts an embedding, "
            "expected matrices of layers alone");
  EXPECT_EQ(renamed("base_model.model.lm_head.weight"),
            "tensor 'base_model.model.lm_head.weight': is not known, expected "
            "base_model.model.PATH.lora_A.weight or .lora_B.weight or .lora_magnitude_vector");
  for (const char* path : {"vision_tower.layers.0.mlp.down_proj", "model.layers.0.mlp.router",
                           "model.layers.-1.mlp.down_proj", "model.layers.00.mlp.down_proj",
                           "model.layers.99999999999.mlp.down_proj", "lm_head"})
    EXPECT_EQ(renamed(fmt::format("base_model.model.{}.lora_A.weight", path)),
              fmt::format("tensor 'base_model.model.{}.lora_A.weight': is for no matrix of a Gemma "
                          "layer's attention or MLP, which is all that adapters can be for",
                          path));
  EXPECT_EQ(renamed("base_model.model.model.language_model.layers.0.mlp.gate_proj.lora_A.weight"),
            "tensor 'base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight': is the same "
            "factor as "
            "'base_model.model.model.language_model.layers.0.mlp.gate_proj.lora_A.weight'");
}

TEST(AdapterFiles, LengthsOfRowsThatCannotBe) {
  const auto fault = [&](const char* name, const char* file, const char* patch,
                         const std::function<void(Stored&)>& change) {
    ScratchFolder folder;
    copy_adapter(name, folder);
    Json config = Json::parse(folder.read("adapter_config.json"));
    config.merge_patch(Json::parse(patch));
    folder.write("adapter_config.json", config.dump());
    rewrite(folder, file, change);
    return error_of([&] { load_adapter(folder.path()); }, folder.path().string());
  };
  constexpr const char* kPeft = "adapter_model.safetensors";
  constexpr const char* kMlx = "adapters.safetensors";
  const auto nothing = [](Stored&) {};
  const std::string path = "base_model.model.model.layers.0.mlp.down_proj";
  const std::string start = "/adapter_model.safetensors: tensor '" + path;
  EXPECT_EQ(fault("dora", kPeft, R"({"use_dora": false})", nothing),
            "/adapter_model.safetensors: tensor 'base_model.model.model.layers.0.self_attn.q_proj."
            "lora_magnitude_vector': is of DoRA, which the configuration does not say it is");
  EXPECT_NE(fault("plain", kPeft, R"({"use_dora": true})", nothing).find("lengths of the rows are"),
            std::string::npos);
  EXPECT_NE(
      fault("mlx", kMlx, R"({"fine_tune_type": "dora"})", nothing).find("lengths of the rows"),
      std::string::npos);
  EXPECT_NE(fault("mlx-dora", kMlx, R"({"fine_tune_type": "lora"})", nothing).find("is of DoRA"),
            std::string::npos);
  EXPECT_EQ(fault("dora", kPeft, "{}", [](Stored& t) { t.erase(t.begin(), t.begin() + 2); }),
            start + ".lora_magnitude_vector': factor A of the same matrix is missing");
  const auto resized = [&](int64_t rows, std::vector<int64_t> shape) {
    return fault("dora", kPeft, "{}", [&](Stored& t) {
      t[2].declaration.shape = std::move(shape);
      t[2].values.resize(static_cast<size_t>(rows));
    });
  };
  EXPECT_EQ(resized(48, {48, 1}),
            start + ".lora_magnitude_vector': shape [48, 1], expected a vector");
  // The order is that of the layers, where the attention is first.
  EXPECT_EQ(resized(40, {40}), start + ".lora_magnitude_vector': has 40 values, but '" + path +
                                   ".lora_B.weight' has 48 rows");
}

TEST(AdapterFiles, DoraHasNoPlaceInGguf) {
  ScratchFolder to;
  const Config config = read_config(kGolden / "gemma3-v5");
  EXPECT_EQ(error_of(
                [&] {
                  save_adapter(load_adapter(kAdapters / "dora"), AdapterFormat::kGguf,
                               to.path() / "x.gguf", false, &config);
                },
                to.path().string()),
            "/x.gguf: the adapter is of DoRA, which GGUF has no place for");
  EXPECT_TRUE(to.names().empty());
}

TEST(AdapterFiles, RanksThatTheConfigurationDenies) {
  ScratchFolder folder;
  copy_adapter("plain", folder);
  Json config = Json::parse(folder.read("adapter_config.json"));
  config["rank_pattern"] = {{"k_proj", 8}};
  folder.write("adapter_config.json", config.dump());
  EXPECT_EQ(error_of([&] { load_adapter(folder.path()); }, folder.path().string()),
            "/adapter_model.safetensors: model.layers.0.self_attn.k_proj has rank 4, but "
            "/adapter_config.json says 8");
  ScratchFolder mlx;  // the same of factors that are not turned
  copy_adapter("mlx", mlx);
  rewrite(mlx, "adapters.safetensors", [](Stored& tensors) {
    for (StoredTensor& t : tensors) std::swap(t.declaration.shape[0], t.declaration.shape[1]);
  });
  EXPECT_NE(error_of([&] { load_adapter(mlx.path()); }).find("has rank"), std::string::npos);
}

TEST(AdapterFiles, WhatIsNoAdapter) {
  ScratchFolder folder;
  const auto error = [&](const fs::path& path) {
    return error_of([&] { load_adapter(path); }, folder.path().string());
  };
  EXPECT_EQ(error(folder.path() / "none"), "/none: no such adapter");
  EXPECT_EQ(error(folder.path()),
            ": no adapter_config.json there; an adapter is a folder with one and factors, or a "
            "GGUF file");
  folder.write("adapter_config.json", "{}");
  EXPECT_EQ(error(folder.path()),
            "/adapter_config.json: neither 'peft_type', as PEFT writes, nor 'lora_parameters', as "
            "MLX-LM does");
  folder.write("adapter_config.json", R"({"peft_type": "LORA"})");
  folder.write("adapter_model.bin", "");
  EXPECT_EQ(error(folder.path()),
            "/adapter_model.bin: is a pickle, expected adapter_model.safetensors");
  EXPECT_NE(error(kGolden / "small.gguf").find("key 'general.type'"), std::string::npos)
      << error(kGolden / "small.gguf");
}

TEST(AdapterFiles, CheckpointsInTheFolder) {
  ScratchFolder folder;
  copy_adapter("mlx", folder);
  fs::rename(folder.path() / "adapters.safetensors",
             folder.path() / "0000100_adapters.safetensors");
  expect_same(load_adapter(folder.path() / "0000100_adapters.safetensors"),
              load_adapter(kAdapters / "mlx"));
}

}  // namespace
}  // namespace lapidary
