// GGUF files made into folders: the weights, the configuration and the tokenizer as HF has them.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/decoding.h"
#include "lapidary/engine.h"
#include "lapidary/synth.h"

#include "base/float16.h"
#include "base/json.h"
#include "gemma/generation_config.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "generate/gguf_vocabulary.h"
#include "generate/small_models.h"
#include "io/hash.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = LAPIDARY_SOURCE_DIR "/models/tiny";

class GgufFolder : public ::testing::Test {
 protected:
  void export_tiny(const std::string& type) {
    export_gguf(kTiny, file_, {.type = type, .overwrite = true, .check = false});
  }
  std::string error(const FolderOptions& options = {}) {
    return error_of([&] { convert_folder(file_, out_, options); }, scratch_.path().string() + "/");
  }
  Json json(const char* name) { return read_json_file(out_ / name); }

  ScratchFolder scratch_;
  const fs::path file_ = scratch_.path() / "m.gguf";
  const fs::path out_ = scratch_.path() / "out";
};

// There and back again: the very tensors of the checkpoint, norms without the "1 +" among them.
TEST_F(GgufFolder, GivesTheCheckpointBack) {
  const auto source = SafetensorsFile::open(kTiny / "model.safetensors");
  for (const char* type : {"bf16", "f32"}) {
    SCOPED_TRACE(type);
    export_tiny(type);
    const Conversion made = convert_folder(file_, out_, {.dtype = "bf16", .overwrite = true});
    EXPECT_EQ(made.tensors, std::ssize(source.tensors()));
    const auto result = SafetensorsFile::open(out_ / "model.safetensors");
    ASSERT_EQ(result.tensors().size(), source.tensors().size());
    for (const NamedTensor& tensor : source.tensors()) {
      SCOPED_TRACE(tensor.name);
      const TensorView* after = result.find(tensor.name);
      ASSERT_NE(after, nullptr);
      EXPECT_EQ(after->dtype, DType::kBF16);
      EXPECT_EQ(after->shape, tensor.view.shape);
      EXPECT_TRUE(std::ranges::equal(after->bytes, tensor.view.bytes));
    }
    ASSERT_TRUE(made.check);
    EXPECT_EQ(made.check->tokens, 24);
    EXPECT_LT(made.check->kld_mean, 1e-6);
    EXPECT_EQ(made.check->top1_agreement, 1);
  }
}

// Without --dtype in the type of the embedding, or bf16 where that is quantised.
TEST_F(GgufFolder, BlocksAreDequantised) {
  for (const auto& [type, dtype, expected] : {std::tuple{"q8_0", "", DType::kBF16},
                                              {"q4_0", "f16", DType::kF16},
                                              {"q4_0", "f32", DType::kF32},
                                              {"f16", "", DType::kF16},
                                              {"f32", "", DType::kF32}}) {
    SCOPED_TRACE(fmt::format("{} {}", type, dtype));
    export_tiny(type);
    convert_folder(file_, out_, {.dtype = dtype, .overwrite = true});
    const Model before = load_model(file_), after = load_model(out_);
    const auto a = list_matrices(before), b = list_matrices(after);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_FALSE(b[i]->quantized());
      EXPECT_EQ(b[i]->dtype, expected);
      std::vector<float> values = floats(*a[i]);
      for (float& x : values) x = rounded_to(expected, x);
      EXPECT_TRUE(floats(*b[i]) == values) << i;
    }
    const char* name = expected == DType::kBF16  ? "bfloat16"
                       : expected == DType::kF16 ? "float16"
                                                 : "float32";
    EXPECT_EQ(json("config.json")["torch_dtype"], name);
    EXPECT_EQ(json("config.json")["dtype"], name);
    EXPECT_FALSE(json("config.json").contains("quantization"));
  }
}

TEST_F(GgufFolder, BitsQuantiseAsMlxDoes) {
  export_tiny("f32");
  convert_folder(file_, out_, {.bits = 4, .group_size = 32, .dtype = "bf16"});
  const fs::path direct = scratch_.path() / "direct";
  convert_folder(kTiny, direct, {.bits = 4, .group_size = 32});
  const auto a = SafetensorsFile::open(out_ / "model.safetensors");
  const auto b = SafetensorsFile::open(direct / "model.safetensors");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const NamedTensor& tensor : b.tensors())
    EXPECT_TRUE(std::ranges::equal(a.find(tensor.name)->bytes, tensor.view.bytes)) << tensor.name;
  EXPECT_EQ(json("config.json")["quantization"],
            (Json{{"bits", 4}, {"group_size", 32}, {"mode", "affine"}}));
}

TEST_F(GgufFolder, SaysWhatTheFileSays) {
  export_tiny("q8_0");
  const Conversion made = convert_folder(file_, out_, {});
  const GgufFile gguf = GgufFile::open(file_);
  EXPECT_EQ(config_json(read_config(out_), ""),
            config_json(read_gguf_config(gguf.contents(), "f"), ""));
  EXPECT_EQ(read_generation_config(out_).eos_token_id, (std::vector<Token>{1, 106}));
  EXPECT_EQ(scratch_.read("out/chat_template.jinja"),
            read_json_file(kTiny / "tokenizer_config.json")["chat_template"].get<std::string>());
  const std::string hash = sha256_of_file(file_);
  EXPECT_NE(scratch_.read("out/README.md").find("Made from `m.gguf` by lapidary"),
            std::string::npos);
  EXPECT_NE(scratch_.read("out/README.md").find("| m.gguf | " + hash), std::string::npos);
  const auto metadata = SafetensorsFile::open(out_ / "model.safetensors").metadata();
  EXPECT_EQ(metadata.at("lapidary.sha256.m.gguf"), hash);
  EXPECT_EQ(metadata.at("lapidary.settings"), "bf16");
  EXPECT_EQ(metadata.at("format"), "pt");
  std::vector<std::string> names;
  for (const Conversion::File& file : made.files) names.push_back(file.name);
  EXPECT_EQ(names, (std::vector<std::string>{"README.md", "chat_template.jinja", "config.json",
                                             "generation_config.json", "model.safetensors",
                                             "tokenizer.model"}));
  EXPECT_EQ(made.changed, made.tensors);
}

// In the file, for the engine and for a folder that is made of it.
TEST_F(GgufFolder, TrainingOnSetBlocksComesBack) {
  const Json said = {{"mask_token_id", 7}, {"block_min", 2}, {"block_max", 8}};
  const fs::path trained = scratch_.path() / "trained";
  fs::copy(kTiny, trained);
  Json config = read_json_file(trained / "config.json");
  config["set_block"] = said;
  scratch_.write("trained/config.json", config.dump());
  export_gguf(trained, file_, {.type = "q8_0", .check = false});
  const auto engine = Engine::load(file_, {});
  EXPECT_TRUE(trained_for_blocks(*engine));
  EXPECT_EQ(mask_token(*engine, {}), 7);
  convert_folder(file_, out_, {.check = false});
  EXPECT_EQ(json("config.json")["set_block"], said);

  export_tiny("q8_0");
  EXPECT_FALSE(trained_for_blocks(*Engine::load(file_, {})));
  convert_folder(file_, out_, {.overwrite = true, .check = false});
  EXPECT_FALSE(json("config.json").contains("set_block"));
}

TEST_F(GgufFolder, GenerationSettingsComeBack) {
  const GenerationConfig config{
      .eos_token_id = {7, 9}, .temperature = 0.5, .top_k = 3, .top_p = 0.25};
  scratch_.write("config.json", "{}");
  scratch_.write("generation_config.json", generation_config_json(config));
  const GenerationConfig read = read_generation_config(scratch_.path());
  EXPECT_EQ(read.eos_token_id, config.eos_token_id);
  EXPECT_EQ(read.temperature, config.temperature);
  EXPECT_EQ(read.top_k, config.top_k);
  EXPECT_EQ(read.top_p, config.top_p);
  GenerationConfig greedy;
  greedy.eos_token_id = {1};
  EXPECT_EQ(generation_config_json(greedy).find("do_sample"), std::string::npos);
}

// Hard strings, those with U+2581 among them: both sides go by scores here. The real vocabularies
// are compared where they are.
TEST_F(GgufFolder, TheTokenizerGivesTheSameIds) {
  const char* set = std::getenv("LAPIDARY_TOKENIZERS");
  const fs::path real = set != nullptr ? set : LAPIDARY_BINARY_DIR "/tokenizers";
  for (const fs::path& folder : {kTiny, real / "gemma2", real / "gemma3"}) {
    if (!Tokenizer::present(folder)) continue;
    SCOPED_TRACE(folder.string());
    GgufContents contents;
    contents.metadata = gguf_vocabulary(folder, Tokenizer::load(folder).size() + 3);
    const Tokenizer before = *read_gguf_vocabulary(contents, "f");
    const Tokenizer after =
        Tokenizer::from_sentencepiece(*sentencepiece_of_gguf(contents, "f"), "t");
    const auto a = before.pieces(), b = after.pieces();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].text, b[i].text);
      ASSERT_EQ(a[i].score, b[i].score);
      ASSERT_EQ(a[i].type, b[i].type);
    }
    for (const Json& item :
         read_json_file(LAPIDARY_SOURCE_DIR "/tests/golden/tokenizer/strings.json")) {
      const auto text = item.get<std::string>();
      EXPECT_EQ(after.encode(text), before.encode(text)) << text;
    }
  }
}

TEST_F(GgufFolder, WithoutAVocabularyThereIsNoTokenizer) {
  const fs::path in = scratch_.path() / "in";
  synthesize(small_config("gemma-2-2b", {.layers = 2, .hidden = 64, .ffn = 96}), {.dtype = "f32"},
             in);
  export_gguf(in, file_, {.type = "f32"});
  const Conversion made = convert_folder(file_, out_, {});
  EXPECT_FALSE(Tokenizer::present(out_));
  EXPECT_LT(made.check->kld_mean, 1e-6);
  const auto a = SafetensorsFile::open(in / "model.safetensors");
  const auto b = SafetensorsFile::open(out_ / "model.safetensors");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const NamedTensor& tensor : a.tensors()) {
    SCOPED_TRACE(tensor.name);
    for (int64_t i = 0; i < tensor.view.elements(); ++i)  // 1 + x is rounded in the file
      ASSERT_NEAR(float_at(b.find(tensor.name)->bytes.data(), DType::kF32, i),
                  float_at(tensor.view.bytes.data(), DType::kF32, i), 0x1p-23);
  }
}

TEST_F(GgufFolder, BytesDoNotDependOnThreads) {
  export_tiny("q4_0");
  convert_folder(file_, out_, {.threads = 1});
  const std::string one = scratch_.read("out/model.safetensors");
  convert_folder(file_, out_, {.overwrite = true, .threads = 3});
  EXPECT_TRUE(scratch_.read("out/model.safetensors") == one);
}

TEST_F(GgufFolder, RefusesInOneLine) {
  export_tiny("bf16");
  EXPECT_EQ(error({.dequantize = true}), "m.gguf: nothing to dequantise, the weights are dense");
  EXPECT_EQ(error({.bits = 4, .group_size = 128, .dtype = "f64"}),
            "dtype: 'f64' given, expected bf16, f16 or f32");
  EXPECT_EQ(error_of([&] { convert_folder(file_, scratch_.path(), {}); }),
            scratch_.path().string() + ": holds the model to convert");
  EXPECT_EQ(error_of([&] { export_gguf(file_, scratch_.path() / "x.gguf", {}); },
                     scratch_.path().string() + "/"),
            "m.gguf: a GGUF file is made of a folder");
  const std::string whole = scratch_.read("m.gguf");
  for (const size_t size : {size_t{10}, size_t{5000}, whole.size() / 2, whole.size() - 1}) {
    scratch_.write("m.gguf", whole.substr(0, size));
    EXPECT_TRUE(error().starts_with("m.gguf: ")) << error();
  }
  EXPECT_EQ(scratch_.names(), std::vector<std::string>{"m.gguf"});
}

}  // namespace
}  // namespace lapidary
