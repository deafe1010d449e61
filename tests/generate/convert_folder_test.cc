// Folders made of folders: quantised, dequantised, of another type.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <map>
#include <set>
#include <string>
#include <sys/resource.h>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/log.h"
#include "lapidary/synth.h"

#include "base/float16.h"
#include "base/json.h"
#include "gemma/load.h"
#include "generate/convert_check.h"
#include "generate/recipe.h"
#include "generate/small_models.h"
#include "io/hash.h"
#include "io/staging.h"
#include "io/test_files.h"
#include "quant/affine.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = LAPIDARY_SOURCE_DIR "/models/tiny";
const fs::path kGolden = LAPIDARY_SOURCE_DIR "/tests/golden";

class ConvertFolder : public ::testing::Test {
 protected:
  ~ConvertFolder() override { set_log_sink({}); }

  static Config small() {
    return small_config("gemma-3-1b", {.layers = 8, .hidden = 128, .ffn = 256, .window = 32});
  }
  fs::path make(const SynthOptions& options = {.dtype = "bf16"}, const char* name = "in") {
    const fs::path folder = scratch_.path() / name;
    fs::remove_all(folder);
    synthesize(small(), options, folder);
    return folder;
  }
  std::string error(const fs::path& in, const FolderOptions& options) {
    return error_of([&] { convert_folder(in, out_, options); }, scratch_.path().string() + "/");
  }
  Json config(const fs::path& folder) { return read_json_file(folder / "config.json"); }

  ScratchFolder scratch_;
  const fs::path out_ = scratch_.path() / "out";
};

// Each matrix as the encoder of MLX's bytes (affine_test.cc) makes it of the source's values, every
// norm as it was; with --dtype both in that type.
TEST_F(ConvertFolder, TensorsAreThoseOfMlx) {
  const fs::path in = make({.dtype = "f32"});
  const auto source = SafetensorsFile::open(in / "model.safetensors");
  for (const auto& [bits, group, dtype] : {std::tuple{4, 64, ""},
                                           {3, 32, "f16"},
                                           {8, 128, "f32"},
                                           {2, 128, "bf16"},
                                           {5, 64, "f32"},
                                           {6, 32, ""}}) {
    SCOPED_TRACE(fmt::format("{} {} {}", bits, group, dtype));
    convert_folder(
        in, out_,
        {.bits = bits, .group_size = group, .dtype = dtype, .overwrite = true, .check = bits > 3});
    const DType type = std::string(dtype) == "f16"    ? DType::kF16
                       : std::string(dtype) == "bf16" ? DType::kBF16
                                                      : DType::kF32;
    const auto made = SafetensorsFile::open(out_ / "model.safetensors");
    const AffineFormat format{bits, group, type};
    size_t tensors = 0;
    for (const NamedTensor& tensor : source.tensors()) {
      SCOPED_TRACE(tensor.name);
      std::vector<float> values;
      for (int64_t i = 0; i < tensor.view.elements(); ++i)
        values.push_back(
            rounded_to(type, float_at(tensor.view.bytes.data(), tensor.view.dtype, i)));
      const auto bytes_of = [&](const std::string& name) {
        ++tensors;
        const TensorView* view = made.find(name);
        return view == nullptr ? std::vector<std::byte>()
                               : std::vector<std::byte>(view->bytes.begin(), view->bytes.end());
      };
      if (tensor.view.shape.size() == 1) {
        std::vector<std::byte> expected(values.size() * static_cast<size_t>(size_of(type)));
        store_floats(values, type, expected.data());
        EXPECT_TRUE(bytes_of(tensor.name) == expected);
        continue;
      }
      const auto n = static_cast<int64_t>(values.size());
      std::vector<std::byte> codes(static_cast<size_t>(format.code_bytes(n)));
      std::vector<std::byte> scales(static_cast<size_t>(format.scale_bytes(n))), biases = scales;
      affine_encode(values, format, {codes.data(), scales.data(), biases.data()});
      const std::string path = tensor.name.substr(0, tensor.name.rfind(".weight"));
      EXPECT_TRUE(bytes_of(path + ".weight") == codes);
      EXPECT_TRUE(bytes_of(path + ".scales") == scales);
      EXPECT_TRUE(bytes_of(path + ".biases") == biases);
    }
    EXPECT_EQ(made.tensors().size(), tensors);
    EXPECT_EQ(made.metadata().at("format"), "mlx");
  }
}

TEST_F(ConvertFolder, SaysWhatItMade) {
  const Conversion made = convert_folder(kTiny, out_, {.bits = 8});
  EXPECT_EQ(made.tensors, std::ssize(load_model(kTiny).checkpoint.tensors()));
  EXPECT_EQ(made.changed, std::ssize(list_matrices(load_model(kTiny))));
  EXPECT_NEAR(made.bits_per_weight, 8.5, 0.1);
  int64_t bytes = 0;
  std::vector<std::string> names;
  for (const Conversion::File& file : made.files) {
    EXPECT_EQ(file.bytes, static_cast<int64_t>(fs::file_size(out_ / file.name)));
    bytes += file.bytes;
    names.push_back(file.name);
  }
  EXPECT_EQ(made.bytes, bytes);
  std::vector<std::string> present;
  for (const auto& entry : fs::directory_iterator(out_)) present.push_back(entry.path().filename());
  std::ranges::sort(present);
  EXPECT_EQ(names, present);
  ASSERT_TRUE(made.check);
  EXPECT_GT(made.check->weight_error, 1e-3);
  EXPECT_LT(made.check->weight_error, 1e-2);
  EXPECT_GE(made.check->worst_tensor_error, made.check->weight_error);
  EXPECT_EQ(made.check->tokens, 24);
  EXPECT_GT(made.check->kld_mean, 0);
  EXPECT_LT(made.check->kld_mean, 0.01);
  EXPECT_GT(made.check->top1_agreement, 0.9);
  EXPECT_LT(made.check->logit_error, made.check->logit_error_limit);
  EXPECT_EQ(scratch_.names(), std::vector<std::string>{"out"});
}

TEST_F(ConvertFolder, OtherFilesAndKeysAreKept) {
  const fs::path in = make();
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(in / name) << text;
  };
  Json json = config(in);
  json["my_own_key"] = {{"a", {1, 2.5, nullptr}}};
  json["torch_dtype"] = "bfloat16";
  write("config.json", json.dump());
  write("tokenizer_config.json", R"({"x": 1})");
  write("chat_template.jinja", "{{ bos }}");
  write("README.md", "---\nlicense: gemma\n---\n# A model\n");
  write("LICENSE", "free");
  write(".gitattributes", "hidden");
  write("model.gguf", "weights");
  write("adapters.safetensors", "weights");
  convert_folder(in, out_, {.bits = 4, .dtype = "f16"});
  for (const char* name :
       {"tokenizer_config.json", "chat_template.jinja", "LICENSE", "generation_config.json"})
    EXPECT_EQ(scratch_.read(std::string("out/") + name), scratch_.read(std::string("in/") + name));
  for (const char* name : {".gitattributes", "model.gguf", "adapters.safetensors"})
    EXPECT_FALSE(fs::exists(out_ / name)) << name;

  Json expected = json;
  expected["quantization"] =
      expected["quantization_config"] = {{"bits", 4}, {"group_size", 64}, {"mode", "affine"}};
  for (const char* key : {"torch_dtype", "dtype"})
    if (expected.contains(key)) expected[key] = "float16";
  EXPECT_EQ(config(out_), expected);

  const std::string readme = scratch_.read("out/README.md");
  EXPECT_TRUE(readme.starts_with("---\nlicense: gemma\n---\n# A model\n"));
  const std::string hash = sha256_of_file(in / "model.safetensors");
  EXPECT_NE(readme.find("Made from `in` by lapidary"), std::string::npos);
  EXPECT_NE(readme.find("4 bits, groups of 64, f16"), std::string::npos);
  EXPECT_NE(readme.find(hash), std::string::npos);
  const auto metadata = SafetensorsFile::open(out_ / "model.safetensors").metadata();
  EXPECT_EQ(metadata.at("lapidary.source"), "in");
  EXPECT_EQ(metadata.at("lapidary.sha256.model.safetensors"), hash);
}

TEST(Sha256, OfKnownTexts) {
  EXPECT_EQ(sha256(as_span("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_F(ConvertFolder, DequantisedWeightsAreTheSame) {
  for (const char* name : {"mlx-4bit-g32-mixed", "mlx-8bit-g128", "mlx-2bit-g32"}) {
    SCOPED_TRACE(name);
    const Model before = load_model(kGolden / name);
    convert_folder(kGolden / name, out_, {.dequantize = true, .dtype = "f32", .overwrite = true});
    const Model after = load_model(out_);
    const auto a = list_matrices(before), b = list_matrices(after);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_FALSE(b[i]->affine());
      EXPECT_EQ(floats(*a[i]), floats(*b[i])) << i;
    }
    EXPECT_FALSE(config(out_).contains("quantization"));
    EXPECT_FALSE(config(out_).contains("quantization_config"));
    EXPECT_EQ(SafetensorsFile::open(out_ / "model.safetensors").metadata().at("format"), "pt");
  }
  // Without --dtype in the type of the scales.
  convert_folder(kGolden / "mlx-4bit-g32-mixed", out_, {.dequantize = true, .overwrite = true});
  EXPECT_EQ(load_model(out_).dtype, DType::kBF16);
  EXPECT_EQ(config(out_)["torch_dtype"], "bfloat16");
}

// The images' part comes along, under the names it had.
TEST_F(ConvertFolder, MultimodalModelsKeepTheirOtherPart) {
  const auto source = SafetensorsFile::open(kGolden / "gemma3-mm" / "model.safetensors");
  const Conversion made = convert_folder(kGolden / "gemma3-mm", out_, {.dtype = "f32"});
  const auto result = SafetensorsFile::open(out_ / "model.safetensors");
  EXPECT_EQ(made.tensors, std::ssize(source.tensors()));
  ASSERT_EQ(result.tensors().size(), source.tensors().size());
  for (const NamedTensor& tensor : source.tensors()) {
    SCOPED_TRACE(tensor.name);
    const TensorView* after = result.find(tensor.name);
    ASSERT_NE(after, nullptr);
    EXPECT_EQ(after->shape, tensor.view.shape);
    ASSERT_EQ(after->dtype, DType::kF32);
    for (int64_t i = 0; i < after->elements(); ++i)
      ASSERT_EQ(float_at(after->bytes.data(), after->dtype, i),
                float_at(tensor.view.bytes.data(), tensor.view.dtype, i));
  }
  EXPECT_TRUE(config(out_).contains("vision_config"));
  EXPECT_EQ(config(out_)["torch_dtype"], "float32");
}

TEST_F(ConvertFolder, RecipesGiveModulesBitsOfTheirOwn) {
  const fs::path in = make();
  convert_folder(in, out_, {.group_size = 32, .recipe = "mixed_3_6", .check = false});
  Model made = load_model(out_);
  for (int i = 0; i < 8; ++i) {
    const LayerWeights& w = made.weights.layers[static_cast<size_t>(i)];
    const bool more = i == 0 || i == 7 || (i - 1) % 3 == 2;
    EXPECT_EQ(w.v_proj.bits, more ? 6 : 3) << i;
    EXPECT_EQ(w.down_proj.bits, more ? 6 : 3) << i;
    EXPECT_EQ(w.q_proj.bits, 3);
    EXPECT_EQ(w.q_proj.group, 32);
  }
  EXPECT_EQ(made.weights.embed_tokens.bits, 3);

  scratch_.write("recipe.json",
                 R"({"*.layers.0.*": {"bits": 8}, "*.v_proj": {"bits": 6, "group_size": 32},
                                    "model.embed_tokens": false})");
  convert_folder(
      in, out_,
      {.bits = 4, .recipe = (scratch_.path() / "recipe.json").string(), .overwrite = true});
  made = load_model(out_);
  EXPECT_EQ(made.weights.layers[0].v_proj.bits, 8);  // the first pattern decides
  EXPECT_EQ(made.weights.layers[0].v_proj.group, 64);
  EXPECT_EQ(made.weights.layers[1].v_proj.bits, 6);
  EXPECT_EQ(made.weights.layers[1].v_proj.group, 32);
  EXPECT_EQ(made.weights.layers[1].q_proj.bits, 4);
  EXPECT_FALSE(made.weights.embed_tokens.affine());
  const Json block = config(out_)["quantization"];
  EXPECT_EQ(block["model.embed_tokens"], false);
  EXPECT_EQ(block["model.layers.1.self_attn.v_proj"], (Json{{"bits", 6}, {"group_size", 32}}));
  EXPECT_FALSE(block.contains("model.layers.1.self_attn.q_proj"));
}

TEST_F(ConvertFolder, RefusesRecipesThatCannotBe) {
  const fs::path in = make();
  const auto with = [&](const std::string& text) {
    scratch_.write("r.json", text);
    return error(in, {.bits = 4, .recipe = (scratch_.path() / "r.json").string()});
  };
  EXPECT_EQ(error(in, {.recipe = "mixed_9_9"}),
            "recipe: 'mixed_9_9' is neither a file nor one of mixed_2_6, mixed_3_4, mixed_3_6, "
            "mixed_4_6");
  EXPECT_EQ(with("{\"*.v_proj\": {\"bits\": 7}}"),
            "r.json: '*.v_proj': bits: 7 given, expected 2, 3, 4, 5, 6 or 8");
  EXPECT_EQ(with("{\"*.v_proj\": {\"bit\": 4}}"),
            "r.json: '*.v_proj': field 'bit': unknown, expected bits or group_size");
  EXPECT_EQ(with("{\"*.v_proj\": true}"), "r.json: '*.v_proj': expected a JSON object, found true");
  EXPECT_EQ(with("{\"*.w_proj\": {\"bits\": 4}}"),
            "r.json: pattern '*.w_proj' fits no module of the model, such as "
            "'model.layers.7.mlp.down_proj'");
  EXPECT_EQ(with("[]"), "r.json: expected an object of patterns, found []");
  EXPECT_EQ(with("{"), "r.json: not valid JSON (stopped at byte 2)");
  EXPECT_EQ(with("{\"*\": false}"),
            "in: nothing would change, the weights are stored like that "
            "already");
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(ConvertFolder, LargeModelsAreCutIntoShards) {
  const fs::path in = make();
  const Conversion made = convert_folder(in, out_, {.bits = 4, .shard_bytes = 40'000});
  const Json index = read_json_file(out_ / "model.safetensors.index.json");
  const Checkpoint checkpoint = Checkpoint::open(out_);
  EXPECT_EQ(index["metadata"]["total_size"], checkpoint.total_bytes());
  EXPECT_EQ(index["weight_map"].size(), checkpoint.tensors().size());
  std::set<std::string> names;
  for (const SafetensorsFile& file : checkpoint.files()) {
    names.insert(file.path().filename());
    int64_t bytes = 0;
    for (const NamedTensor& tensor : file.tensors()) bytes += std::ssize(tensor.view.bytes);
    EXPECT_LE(bytes, 40'000);
  }
  EXPECT_GT(names.size(), 3u);
  EXPECT_TRUE(names.contains(fmt::format("model-00001-of-{:05}.safetensors", names.size())));
  EXPECT_FALSE(fs::exists(out_ / "model.safetensors"));

  // And read again as a source.
  const fs::path whole = scratch_.path() / "whole";
  convert_folder(out_, whole, {.dequantize = true});
  convert_folder(in, out_, {.bits = 4, .overwrite = true});
  EXPECT_FALSE(fs::exists(out_ / "model.safetensors.index.json"));
  convert_folder(out_, scratch_.path() / "other", {.dequantize = true});
  EXPECT_EQ(floats(load_model(whole).weights.layers[3].gate_proj),
            floats(load_model(scratch_.path() / "other").weights.layers[3].gate_proj));
}

// The file size limit stands in for a full disk: the first shard fits, a later one does not.
TEST_F(ConvertFolder, ALaterShardThatDoesNotFit) {
  const fs::path in = make();
  const FolderOptions options{.dtype = "f32", .shard_bytes = 200'000};
  std::vector<std::pair<std::string, int64_t>> shards;
  for (const auto& file : convert_folder(in, out_, options).files)
    if (file.name.ends_with(".safetensors")) shards.emplace_back(file.name, file.bytes);
  const int64_t first = shards.front().second;
  const auto later = std::ranges::find_if(shards, [&](const auto& s) { return s.second > first; });
  ASSERT_NE(later, shards.end());
  fs::remove_all(out_);

  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit limit = old;
  limit.rlim_cur = static_cast<rlim_t>(first);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::string message = error(in, options);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(message.starts_with("out.partial/out/" + later->first + ": cannot write ") &&
              message.ends_with(": File too large"))
      << message;
  EXPECT_EQ(scratch_.names(), std::vector<std::string>{"in"});
}

TEST_F(ConvertFolder, BytesDoNotDependOnThreads) {
  convert_folder(kTiny, out_, {.bits = 4, .threads = 1});
  const std::string one = scratch_.read("out/model.safetensors");
  convert_folder(kTiny, out_, {.bits = 4, .overwrite = true, .threads = 3});
  EXPECT_TRUE(scratch_.read("out/model.safetensors") == one);
}

TEST_F(ConvertFolder, RefusesWhatWouldDoNothing) {
  const fs::path dense = make(), quantised = make({.bits = 4, .group_size = 64}, "q");
  EXPECT_EQ(
      error(dense, {}),
      "nothing asked for: --bits N quantises, --dequantize writes dense weights, --dtype TYPE "
      "changes their type");
  EXPECT_EQ(error(dense, {.dtype = "bf16"}),
            "in: nothing would change, the weights are stored like that already");
  EXPECT_EQ(error(dense, {.dequantize = true}), "in: nothing to dequantise, the weights are dense");
  EXPECT_EQ(error(quantised, {.bits = 4}),
            "q: nothing would change, the weights are stored like that already");
  EXPECT_EQ(error(quantised, {.dtype = "f32"}),
            "q: the weights are quantised, and have a type only when dense");
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(ConvertFolder, RefusesOptionsThatCannotBe) {
  const fs::path in = make();
  EXPECT_EQ(error(in, {.bits = 7}), "bits: 7 given, expected 2, 3, 4, 5, 6 or 8");
  EXPECT_EQ(error(in, {.bits = 4, .group_size = 48}),
            "group-size: 48 given, expected 32, 64 or 128");
  EXPECT_EQ(error(in, {.bits = 4, .dtype = "int8"}),
            "dtype: 'int8' given, expected bf16, f16 or f32");
  EXPECT_EQ(error(in, {.bits = 4, .dequantize = true}),
            "--dequantize writes dense weights, and does not go with quantising");
  EXPECT_EQ(error(in, {.bits = 4, .threads = -1}), "threads: -1 is negative");
  EXPECT_EQ(error(kGolden / "gemma3-v5", {.bits = 4, .group_size = 32}),
            "group-size: 32 does not divide the width 48 of model.embed_tokens.weight");
}

TEST_F(ConvertFolder, QuantisingTwiceIsAllowedAndWarnedOf) {
  const fs::path in = make({.bits = 8, .group_size = 64});
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
  });
  convert_folder(in, out_, {.bits = 4});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("in is quantised already, and the errors add up"), std::string::npos);
  EXPECT_EQ(load_model(out_).weights.embed_tokens.bits, 4);
}

TEST_F(ConvertFolder, ReplacesOnlyModels) {
  const fs::path in = make();
  const FolderOptions force{.bits = 4, .overwrite = true};
  EXPECT_EQ(error(in, {.bits = 4}), "no error");
  EXPECT_EQ(error(in, {.bits = 4}), "out: is there already");
  EXPECT_EQ(error(in, force), "no error");
  fs::remove_all(out_);
  fs::create_directories(out_);
  EXPECT_EQ(error(in, force), "no error");  // it was empty
  fs::remove_all(out_);
  scratch_.write("out", "a file");
  EXPECT_EQ(error(in, force), "out: is not a folder");
  fs::remove(out_);
  fs::create_directories(out_);
  scratch_.write("out/letters.txt", "dear");
  EXPECT_EQ(error(in, force), "out: is no model, and not replaced");
  EXPECT_EQ(scratch_.read("out/letters.txt"), "dear");
  for (const fs::path& target : {in, in / ".", scratch_.path()}) {
    const std::string message = error_of([&] { convert_folder(in, target, force); });
    EXPECT_TRUE(message.ends_with(": holds the model to convert")) << message;
  }
  EXPECT_TRUE(fs::exists(in / "config.json"));
}

TEST_F(ConvertFolder, WhatCannotBeWritten) {
  const fs::path in = make();
  const auto kind = [&](const fs::path& target) {
    try {
      convert_folder(in, target, {.bits = 4});
    } catch (const Error& e) {
      return static_cast<int>(e.kind());
    }
    return -1;
  };
  EXPECT_EQ(kind(scratch_.path() / "none" / "out"), static_cast<int>(ErrorKind::kResource));
  EXPECT_EQ(kind(scratch_.path() / std::string(300, 'x')), static_cast<int>(ErrorKind::kResource));
  EXPECT_EQ(scratch_.names(), std::vector<std::string>{"in"});
}

// What a killed conversion leaves is removed by the next; what is not from one is left alone.
TEST_F(ConvertFolder, LeftoversAreRemoved) {
  const fs::path in = make(), partial = scratch_.path() / "out.partial";
  {
    Staging killed(out_);
    std::ofstream(killed.path() / "model.safetensors") << "half";
    EXPECT_EQ(error(in, {.bits = 4}), "out.partial: another process is writing to it");
    killed.keep();
  }
  EXPECT_TRUE(fs::exists(partial / "out" / "model.safetensors"));
  EXPECT_EQ(error(in, {.bits = 4}), "no error");
  EXPECT_EQ(scratch_.names(), (std::vector<std::string>{"in", "out"}));

  fs::create_directories(partial);
  std::ofstream(partial / "mine") << "kept";
  EXPECT_EQ(error(in, {.bits = 4, .overwrite = true}),
            "out.partial: is there already, and was not made by lapidary");
  EXPECT_TRUE(fs::exists(partial / "mine"));
}

TEST_F(ConvertFolder, InterruptedItLeavesNothing) {
  for (const double when : {0.2, 0.7}) {  // while writing, and while checking
    std::stop_source stop;
    const Watch watch{.progress =
                          [&](int64_t done, int64_t total) {
                            if (static_cast<double>(done) > when * static_cast<double>(total))
                              stop.request_stop();
                          },
                      .stop = stop.get_token()};
    try {
      convert_folder(kTiny, out_, {.bits = 4}, watch);
      ADD_FAILURE() << "was not interrupted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
    }
    EXPECT_TRUE(scratch_.names().empty());
  }
}

// What the check is there for: weights of another tensor, a value that is no number, one value out
// of place, and a model whose weights are right while its configuration is not.
TEST_F(ConvertFolder, TheCheckFindsWrongWeights) {
  const fs::path in = make({.dtype = "f32"});
  convert_folder(in, out_, {.bits = 4, .check = false});
  const Model before = load_model(in), after = load_model(out_);
  const WeightMatrix &a = before.weights.layers[0].gate_proj,
                     &b = after.weights.layers[0].gate_proj;
  const RowEncoder encoder = affine_encoder({4, 64, DType::kF32});
  ThreadPool pool(1);
  const auto check = [&](const RowSource& x, const RowSource& y) {
    ConversionCheck result;
    const TensorPair pair{"t", x, y, encoder.block_values, encoder.error_share};
    return error_of([&] { check_weights({&pair, 1}, "out", pool, result, [](int64_t) {}); });
  };
  EXPECT_EQ(check(rows_of(a), rows_of(b)), "no error");
  EXPECT_TRUE(
      check(rows_of(a), rows_of(after.weights.layers[0].up_proj))
          .starts_with("out: tensor t: weights differ by 1.4 of their size, more than the"));
  const auto with = [&](float value) {
    RowSource changed = rows_of(b);
    changed.fill = [fill = changed.fill, value](int64_t row, float* values) {
      fill(row, values);
      if (row == 5) values[3] = value;
    };
    return check(rows_of(a), changed);
  };
  EXPECT_NE(with(NAN), "no error");
  EXPECT_NE(with(INFINITY), "no error");
  EXPECT_NE(with(100), "no error");
}

TEST_F(ConvertFolder, TheCheckFindsAnotherModel) {
  const fs::path in = make({.dtype = "f32"});
  convert_folder(in, out_, {.bits = 8, .check = false});
  const Model before = load_model(in);
  const std::vector<Token> tokens = check_tokens(before, in);
  EXPECT_EQ(tokens.size(), 24u);
  const auto check = [&](const fs::path& folder) {
    ConversionCheck result;
    result.logit_error_limit = 0.1;
    return error_of(
        [&] { check_logits(before, load_model(folder), tokens, "out", 1, result, {}); });
  };
  EXPECT_EQ(check(out_), "no error");
  Json json = config(out_);
  json["query_pre_attn_scalar"] = 1;
  std::ofstream(out_ / "config.json") << json.dump();
  EXPECT_TRUE(check(out_).starts_with("out: logits differ by ")) << check(out_);
  EXPECT_NE(check(make({.dtype = "f32", .seed = 1}, "other")), "no error");
}

// Here because the source's tokenizer cannot be read. The result is not put in place, but kept.
TEST_F(ConvertFolder, AResultThatFailsItsCheckIsNotPutInPlace) {
  const fs::path in = make();
  std::ofstream(in / "tokenizer.json") << "not a tokenizer";
  const std::string message = error(in, {.bits = 8});
  EXPECT_TRUE(message.starts_with("the result failed its check: ")) << message;
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_TRUE(fs::exists(scratch_.path() / "out.partial" / "out" / "model.safetensors"));
  EXPECT_EQ(error(in, {.bits = 8, .check = false}), "no error");
  EXPECT_EQ(scratch_.names(), (std::vector<std::string>{"in", "out"}));
}

// MLX folders with something wrong in them, by name.
TEST_F(ConvertFolder, NamedCorruptions) {
  const fs::path in = make({.bits = 4, .group_size = 64});
  const std::string whole = scratch_.read("in/model.safetensors");
  const Json good = config(in);
  const auto with_config = [&](const std::function<void(Json&)>& change) {
    Json json = good;
    change(json);
    scratch_.write("in/config.json", json.dump());
    const std::string message = error(in, {.bits = 8});
    scratch_.write("in/config.json", good.dump());
    return message;
  };
  const auto with_weights = [&](const std::string& from, const std::string& to) {
    std::string bytes = whole;
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    scratch_.write("in/model.safetensors", bytes.replace(at, from.size(), to));
    const std::string message = error(in, {.bits = 8});
    scratch_.write("in/model.safetensors", whole);
    return message;
  };
  const std::string v = "model.layers.0.self_attn.v_proj";
  EXPECT_EQ(with_config([](Json& c) {
              c.erase("quantization");
              c.erase("quantization_config");
            }),
            "in/model.safetensors: tensor model.embed_tokens.scales but config.json has no "
            "'quantization'");
  EXPECT_EQ(
      with_config([](Json& c) { c["quantization"]["bits"] = 7; }),
      "in/config.json: quantization: field 'bits': expected one of 2, 3, 4, 5, 6, 8, found 7");
  EXPECT_EQ(with_config([](Json& c) { c["quantization"]["bits"] = 8; }),
            "in/model.safetensors: tensor model.embed_tokens.weight: shape [300, 16], expected "
            "[300, 32]");
  EXPECT_EQ(with_config([](Json& c) { c["quantization"]["group_size"] = 32; }),
            "in/model.safetensors: tensor model.embed_tokens.scales: shape [300, 2], expected "
            "[300, 4]");
  EXPECT_EQ(
      with_config([](Json& c) { c["quantization"]["mode"] = "mxfp4"; }),
      "in/config.json: quantization: field 'mode': 'mxfp4' is not supported, expected 'affine'");
  EXPECT_EQ(with_config([&](Json& c) { c["quantization"][v] = false; }),
            "in/model.safetensors: tensor " + v +
                ".scales but config.json says that the module is not quantised");
  EXPECT_NE(with_config([](Json& c) {
              c["model_type"] = "llama";
              c["architectures"] = {"LlamaForCausalLM"};
            }).find("lama"),
            std::string::npos);
  EXPECT_EQ(with_weights(v + ".scales", v + ".scalez").substr(0, 30),
            "in/model.safetensors: tensor m");
  EXPECT_EQ(with_weights(v + ".biases", v + ".biasez"), "in: tensor " + v + ".biases is missing");
  EXPECT_EQ(with_weights(v + ".weight", v + ".weighs"), "in: tensor " + v + ".weight is missing");
  scratch_.write("in/model.safetensors", whole.substr(0, whole.size() / 2));
  EXPECT_NE(error(in, {.bits = 8}).find("in/model.safetensors: "), std::string::npos);
  fs::remove(in / "model.safetensors");
  EXPECT_EQ(error(in, {.bits = 8}),
            "in: no weights: found neither model.safetensors nor model.safetensors.index.json nor "
            "other .safetensors files");
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(ConvertFolder, RefusesValuesThatDoNotFit) {
  const fs::path in = make({.dtype = "f32"});
  {
    std::fstream file(in / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    const float large = 1e5f;
    file.seekp(-4, std::ios::end);
    file.write(reinterpret_cast<const char*>(&large), sizeof large);
  }
  const std::string message = error(in, {.dtype = "f16"});
  EXPECT_TRUE(message.starts_with("in: tensor model.") &&
              message.ends_with(" has a value that F16 cannot hold"))
      << message;
  EXPECT_EQ(error(in, {.dtype = "bf16"}), "no error");
}

}  // namespace
}  // namespace lapidary
