// GGUF files of models, read back with our own reader.
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/synth.h"
#include "lapidary/tokenizer.h"

#include "base/float16.h"
#include "base/json.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "generate/small_models.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "io/test_files.h"
#include "kernels/kernels.h"
#include "quant/q4_0.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = LAPIDARY_SOURCE_DIR "/models/tiny";

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

Bytes f32_bytes(const std::vector<float>& values) {
  return bytes_of(std::as_bytes(std::span(values)));
}

template <auto convert>
Bytes halves(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float x : values) bits.push_back(convert(x).bits);
  return bytes_of(std::as_bytes(std::span(bits)));
}
constexpr auto kToF16 = [](float x) { return to_float16(x); };
constexpr auto kToBF16 = [](float x) { return to_bfloat16(x); };

template <auto encode, int64_t block, int64_t block_bytes>
Bytes blocks(const std::vector<float>& values) {
  Bytes bytes(values.size() / block * block_bytes);
  encode(values, bytes.data());
  return bytes;
}

struct Expected {
  const char* option;
  GgmlType type;
  uint32_t file_type;
  Bytes (*encode)(const std::vector<float>&);
};
const Expected kTypes[] = {
    {"f32", GgmlType::kF32, 0, f32_bytes},
    {"f16", GgmlType::kF16, 1, halves<kToF16>},
    {"bf16", GgmlType::kBF16, 32, halves<kToBF16>},
    {"q8_0", GgmlType::kQ8_0, 7, blocks<q8_0_encode, kQ8_0Block, kQ8_0BlockBytes>},
    {"q4_0", GgmlType::kQ4_0, 2, blocks<q4_0_encode, kQ4_0Block, kQ4_0BlockBytes>}};

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values;
  for (int64_t i = 0; i < view.elements(); ++i)
    values.push_back(float_at(view.bytes.data(), view.dtype, i));
  return values;
}

template <class T>
T value(const GgufContents& contents, const std::string& key) {
  const GgufValue* found = contents.find(key);
  if (found == nullptr || !std::holds_alternative<T>(*found)) {
    ADD_FAILURE() << key;
    return {};
  }
  return std::get<T>(*found);
}

template <class T>
std::vector<T> list(const GgufContents& contents, const std::string& key) {
  const auto array = value<GgufArray>(contents, key);
  const auto* found = std::get_if<std::vector<T>>(&array);
  if (found == nullptr) ADD_FAILURE() << key;
  return found == nullptr ? std::vector<T>() : *found;
}

class ExportGguf : public ::testing::Test {
 protected:
  GgufFile convert(const fs::path& model, const GgufOptions& options = {}) {
    export_gguf(model, file_, options);
    return GgufFile::open(file_);
  }
  std::string error(const fs::path& model, const GgufOptions& options = {}) {
    return error_of([&] { export_gguf(model, file_, options); }, scratch_.path().string() + "/");
  }

  static Config small(const std::string& name = "gemma-3-1b") {
    return small_config(name, {.layers = 2, .hidden = 64, .ffn = 96});
  }
  fs::path make(const Config& config, const SynthOptions& options = {.dtype = "f32"}) {
    const fs::path folder = scratch_.path() / "model";
    fs::remove_all(folder);
    synthesize(config, options, folder);
    return folder;
  }

  // Puts `x` in place of a value of model.safetensors.
  static void poke(const fs::path& folder, const std::string& tensor, int64_t index, float x) {
    const fs::path path = folder / "model.safetensors";
    int64_t at = 0;
    {
      const auto file = SafetensorsFile::open(path);
      const auto* first = file.find(tensor)->bytes.data();
      for (const NamedTensor& other : file.tensors())
        at = std::max<int64_t>(at, other.view.bytes.data() + other.view.bytes.size() - first);
      at = static_cast<int64_t>(fs::file_size(path)) - at + index * int64_t{sizeof x};
    }
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file.write(reinterpret_cast<const char*>(&x), sizeof x);
  }

  ScratchFolder scratch_;
  const fs::path file_ = scratch_.path() / "out.gguf";
};

// Each tensor of the checkpoint, read here by itself, is there once: matrices encoded row by row,
// norms with the "1 +" added and in f32.
TEST_F(ExportGguf, HoldsTheWeightsOfTheBuiltInModel) {
  const Config config = read_config(kTiny);
  const auto checkpoint = SafetensorsFile::open(kTiny / "model.safetensors");
  for (const Expected& expected : kTypes) {
    SCOPED_TRACE(expected.option);
    const GgufFile made = convert(kTiny, {.type = expected.option, .overwrite = true});
    EXPECT_EQ(made.contents().tensors.size(), checkpoint.tensors().size());
    for (const NamedTensor& theirs : checkpoint.tensors()) {
      SCOPED_TRACE(theirs.name);
      const GgufTensor* ours = made.contents().find_tensor(gguf_tensor_name(config, theirs.name));
      ASSERT_NE(ours, nullptr);
      EXPECT_EQ(ours->shape, theirs.view.shape);
      std::vector<float> values = floats(theirs.view);
      const bool norm = theirs.view.shape.size() == 1;
      if (norm)
        for (float& x : values) x += 1;
      EXPECT_EQ(ours->type, norm ? GgmlType::kF32 : expected.type);
      EXPECT_TRUE(bytes_of(ours->bytes) == (norm ? f32_bytes(values) : expected.encode(values)));
    }
  }
}

// The embedding here is larger than what is made between two writes.
TEST_F(ExportGguf, LargeMatricesAreMadeInPieces) {
  Config config = small();
  config.vocab_size = 70000;
  const fs::path folder = make(config);
  const GgufFile made = convert(folder, {.type = "f32"});
  EXPECT_TRUE(bytes_of(made.contents().find_tensor("token_embd.weight")->bytes) ==
              f32_bytes(floats(load_model(folder).weights.embed_tokens)));
}

TEST_F(ExportGguf, MetadataOfTheBuiltInModel) {
  for (const Expected& expected : kTypes) {
    SCOPED_TRACE(expected.option);
    const GgufFile made = convert(kTiny, {.type = expected.option, .overwrite = true});
    const GgufContents& c = made.contents();
    EXPECT_EQ(c.metadata[0].first, "general.architecture");
    EXPECT_EQ(value<std::string>(c, "general.architecture"), "gemma3");
    EXPECT_EQ(value<std::string>(c, "general.type"), "model");
    EXPECT_EQ(value<std::string>(c, "general.name"), "tiny");
    EXPECT_EQ(value<uint32_t>(c, "general.file_type"), expected.file_type);
    EXPECT_EQ(c.find("general.quantization_version") != nullptr, expected.option[0] == 'q');
    EXPECT_EQ(value<uint32_t>(c, "gemma3.block_count"), 7u);
    EXPECT_EQ(value<uint32_t>(c, "gemma3.attention.sliding_window_pattern"), 6u);
    EXPECT_EQ(value<float>(c, "gemma3.rope.freq_base"), 1e6f);
  }
  EXPECT_EQ(value<std::string>(convert(kTiny / "", {.overwrite = true}).contents(), "general.name"),
            "tiny");
}

TEST_F(ExportGguf, SummaryCountsWhatWasWritten) {
  const Conversion summary = export_gguf(kTiny, file_, {});
  EXPECT_EQ(summary.tensors, std::ssize(GgufFile::open(file_).contents().tensors));
  EXPECT_EQ(summary.bytes, static_cast<int64_t>(fs::file_size(file_)));
  EXPECT_FALSE(summary.placeholder_vocabulary);
}

// Made again from the lists in the file, the tokenizer gives the same ids. U+2581 in text is where
// a vocabulary of scored pieces differs from a tokenizer.json (tokenizer.h).
TEST_F(ExportGguf, TheTokenizerSurvives) {
  const GgufFile made = convert(kTiny);
  const GgufContents& c = made.contents();
  const auto texts = list<std::string>(c, "tokenizer.ggml.tokens");
  const auto scores = list<float>(c, "tokenizer.ggml.scores");
  const auto types = list<int32_t>(c, "tokenizer.ggml.token_type");
  ASSERT_EQ(texts.size(), 4096u);
  ASSERT_EQ(scores.size(), texts.size());
  ASSERT_EQ(types.size(), texts.size());
  std::vector<ScoredPiece> pieces;
  for (size_t i = 0; i < texts.size(); ++i)
    pieces.push_back({texts[i], scores[i], static_cast<PieceType>(types[i])});
  const Tokenizer again = Tokenizer::from_pieces(pieces, "pieces");
  const Json golden = read_json_file(LAPIDARY_SOURCE_DIR "/tests/golden/tokenizer/tiny.json");
  for (const Json& item : golden["encode"]) {
    const auto text = item["text"].get<std::string>();
    if (text.find("▁") != std::string::npos) continue;
    EXPECT_EQ(again.encode(text), item["ids"].get<std::vector<Token>>()) << text;
  }
}

void expect_tokenizer_keys(const GgufContents& c) {
  EXPECT_EQ(value<std::string>(c, "tokenizer.ggml.model"), "llama");
  EXPECT_EQ(value<uint32_t>(c, "tokenizer.ggml.padding_token_id"), 0u);
  EXPECT_EQ(value<uint32_t>(c, "tokenizer.ggml.eos_token_id"), 1u);
  EXPECT_EQ(value<uint32_t>(c, "tokenizer.ggml.bos_token_id"), 2u);
  EXPECT_EQ(value<uint32_t>(c, "tokenizer.ggml.unknown_token_id"), 3u);
  EXPECT_TRUE(value<bool>(c, "tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(value<bool>(c, "tokenizer.ggml.add_eos_token"));
  EXPECT_FALSE(value<bool>(c, "tokenizer.ggml.add_space_prefix"));
}

TEST_F(ExportGguf, TokenizerKeysAndChatTemplate) {
  const GgufFile made = convert(kTiny);
  const GgufContents& c = made.contents();
  expect_tokenizer_keys(c);
  EXPECT_EQ(value<uint32_t>(c, "tokenizer.ggml.eot_token_id"),
            static_cast<uint32_t>(*Tokenizer::load(kTiny).find("<end_of_turn>")));
  EXPECT_EQ(c.find("general.description"), nullptr);

  const fs::path folder = make(small());
  fs::copy_file(kTiny / "tokenizer.json", folder / "tokenizer.json");
  const auto chat_template = [&] {
    const GgufFile with = convert(folder, {.overwrite = true});
    const GgufValue* found = with.contents().find("tokenizer.chat_template");
    return found == nullptr ? "none" : std::get<std::string>(*found);
  };
  EXPECT_EQ(chat_template(), "none");
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(folder / name) << text;
  };
  write("tokenizer_config.json", R"({"chat_template": "from a field"})");
  EXPECT_EQ(chat_template(), "from a field");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tools", "template": "no"},
                                                       {"name": "default", "template": "listed"}]})");
  EXPECT_EQ(chat_template(), "listed");
  write("chat_template.jinja", "of its own\n");
  EXPECT_EQ(chat_template(), "of its own\n");
}

// llama.cpp wants as many tokens as the embedding has rows.
TEST_F(ExportGguf, AsManyTokensAsRows) {
  for (const int vocab : {4000, 5000}) {
    Config config = small();
    config.vocab_size = vocab;
    const fs::path folder = make(config);
    fs::copy_file(kTiny / "tokenizer.json", folder / "tokenizer.json");
    const GgufFile made = convert(folder, {.overwrite = true});
    const auto texts = list<std::string>(made.contents(), "tokenizer.ggml.tokens");
    const auto types = list<int32_t>(made.contents(), "tokenizer.ggml.token_type");
    ASSERT_EQ(static_cast<int>(texts.size()), vocab);
    ASSERT_EQ(static_cast<int>(types.size()), vocab);
    EXPECT_EQ(texts[300], Tokenizer::load(kTiny).piece(300));
    if (vocab == 4000) continue;
    EXPECT_EQ(texts[4096], "[PAD4096]");
    EXPECT_EQ(types[4096], static_cast<int32_t>(PieceType::kUnused));
  }
}

TEST_F(ExportGguf, AFolderWithoutATokenizerGetsAPlaceholder) {
  const fs::path folder = make(small());
  EXPECT_TRUE(export_gguf(folder, file_, {}).placeholder_vocabulary);
  const GgufFile made = GgufFile::open(file_);
  const GgufContents& c = made.contents();
  expect_tokenizer_keys(c);
  EXPECT_NE(value<std::string>(c, "general.description").find("placeholder"), std::string::npos);
  const auto texts = list<std::string>(c, "tokenizer.ggml.tokens");
  const auto types = list<int32_t>(c, "tokenizer.ggml.token_type");
  ASSERT_EQ(texts.size(), 300u);
  ASSERT_EQ(types.size(), 300u);
  EXPECT_EQ(texts[4], "<0x00>");
  EXPECT_EQ(texts[259], "<0xFF>");
  EXPECT_EQ(types[259], static_cast<int32_t>(PieceType::kByte));
  EXPECT_EQ(texts[260], "[260]");
  EXPECT_EQ(texts[299], "[299]");

  Config without_room = small();
  without_room.vocab_size = 259;
  EXPECT_EQ(error(make(without_room), {.overwrite = true}),
            "model/config.json: field 'vocab_size': 259, expected 260 or more where there is no "
            "tokenizer: llama.cpp aborts on bytes that have no token");
}

TEST_F(ExportGguf, AffineWeightsAreDequantised) {
  const fs::path folder = make(small(), {.bits = 4, .group_size = 32});
  const Model model = load_model(folder);
  for (const Expected& expected : kTypes) {
    SCOPED_TRACE(expected.option);
    const GgufFile made = convert(folder, {.type = expected.option, .overwrite = true});
    const auto matrix = [&](const char* name) {
      return bytes_of(made.contents().find_tensor(name)->bytes);
    };
    EXPECT_TRUE(matrix("token_embd.weight") == expected.encode(floats(model.weights.embed_tokens)));
    EXPECT_TRUE(matrix("blk.1.ffn_down.weight") ==
                expected.encode(floats(model.weights.layers[1].down_proj)));
  }
}

// Q4_K and Q6_K, and the mixture of the two: more bits for the embedding, and in some layers for
// two matrices.
TEST_F(ExportGguf, BlocksOf256) {
  Config config = small();
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_attention_heads = 8;
  config.num_hidden_layers = 8;
  config.layer_types.assign(8, LayerType::kSliding);
  config.layer_types[5] = LayerType::kFull;
  const fs::path folder = make(config);
  const Model model = load_model(folder);
  const auto encode_q4_k = blocks<q4_k_encode, kQ4KBlock, kQ4KBlockBytes>;
  const auto encode_q6_k = blocks<q6_k_encode, kQ6KBlock, kQ6KBlockBytes>;
  for (const auto& [option, plain, sensitive, file_type] :
       {std::tuple{"q4_k", GgmlType::kQ4_K, GgmlType::kQ4_K, 14u},
        {"q4_k_m", GgmlType::kQ4_K, GgmlType::kQ6_K, 15u},
        {"q6_k", GgmlType::kQ6_K, GgmlType::kQ6_K, 18u}}) {
    SCOPED_TRACE(option);
    const GgufFile made = convert(folder, {.type = option, .overwrite = true});
    EXPECT_EQ(value<uint32_t>(made.contents(), "general.file_type"), file_type);
    EXPECT_NE(made.contents().find("general.quantization_version"), nullptr);
    const auto expect = [&](const std::string& name, const WeightMatrix& matrix, GgmlType type) {
      SCOPED_TRACE(name);
      const GgufTensor* tensor = made.contents().find_tensor(name);
      ASSERT_EQ(tensor->type, type);
      EXPECT_TRUE(
          bytes_of(tensor->bytes) ==
          (type == GgmlType::kQ4_K ? encode_q4_k(floats(matrix)) : encode_q6_k(floats(matrix))));
    };
    expect("token_embd.weight", model.weights.embed_tokens, sensitive);
    for (const int layer : {0, 1, 3, 7}) {
      const LayerWeights& w = model.weights.layers[static_cast<size_t>(layer)];
      const std::string at = fmt::format("blk.{}.", layer);
      const GgmlType type = layer == 1 ? plain : sensitive;
      expect(at + "attn_v.weight", w.v_proj, type);
      expect(at + "ffn_down.weight", w.down_proj, type);
      expect(at + "attn_k.weight", w.k_proj, plain);
    }
  }
}

// As llama.cpp's quantiser has it: Q5_0 for Q4_K, Q8_0 for Q6_K, and F16 where blocks of 32 do not
// divide a width either. The bytes are those of the encoders, and the summary counts them.
TEST_F(ExportGguf, WidthsThatBlocksOf256DoNotDivide) {
  Config config = small();
  config.intermediate_size = 80;
  const fs::path folder = make(config);
  const Model model = load_model(folder);
  const auto type_of = [](const GgufFile& made, const std::string& name) {
    return made.contents().find_tensor(name)->type;
  };
  const Conversion mixed = export_gguf(folder, file_, {.type = "q4_k_m"});
  const GgufFile made = GgufFile::open(file_);
  EXPECT_EQ(type_of(made, "token_embd.weight"), GgmlType::kQ8_0);
  EXPECT_EQ(type_of(made, "blk.0.attn_q.weight"), GgmlType::kQ5_0);
  EXPECT_EQ(type_of(made, "blk.0.ffn_up.weight"), GgmlType::kQ5_0);
  EXPECT_EQ(type_of(made, "blk.0.ffn_down.weight"), GgmlType::kF16);
  EXPECT_EQ(type_of(made, "blk.0.attn_norm.weight"), GgmlType::kF32);
  EXPECT_EQ(value<uint32_t>(made.contents(), "general.file_type"), 15u);
  const auto encode_q5_0 = blocks<q5_0_encode, kQ5_0Block, kQ5_0BlockBytes>;
  EXPECT_TRUE(bytes_of(made.contents().find_tensor("blk.1.attn_k.weight")->bytes) ==
              encode_q5_0(floats(model.weights.layers[1].k_proj)));
  std::map<std::string, int64_t> expected;
  for (const GgufTensor& tensor : made.contents().tensors)
    if (tensor.shape.size() > 1) ++expected[std::string(info_of(tensor.type).name)];
  EXPECT_EQ(mixed.substitutes, expected);
  EXPECT_EQ(expected.at("F16"), 2);

  const Conversion six = export_gguf(folder, file_, {.type = "q6_k", .overwrite = true});
  EXPECT_EQ(six.substitutes, (std::map<std::string, int64_t>{{"F16", 2}, {"Q8_0", 13}}));
  EXPECT_TRUE(export_gguf(kTiny, file_, {.type = "q8_0", .overwrite = true}).substitutes.empty());
  EXPECT_EQ(error(folder, {.type = "q4_0", .overwrite = true}),
            "model: tensor model.layers.0.mlp.down_proj.weight: blocks of 32 do not divide its "
            "width of 80");
}

// The same tokens go through the file and the folder.
TEST_F(ExportGguf, EndsWithLogits) {
  const auto check = [&](const char* type) {
    return *export_gguf(kTiny, file_, {.type = type, .overwrite = true}).check;
  };
  EXPECT_EQ(check("f32").tokens, 24);
  EXPECT_LT(check("f32").logit_error, 1e-6);
  EXPECT_EQ(check("bf16").top1_agreement, 1);
  const ConversionCheck coarse = check("q4_0");
  EXPECT_GT(coarse.kld_mean, check("q8_0").kld_mean);
  EXPECT_GT(coarse.logit_error, 0.01);
  EXPECT_LT(coarse.logit_error, coarse.logit_error_limit);
}

// llama.cpp scales queries by head_dim whatever the model says; 32 / 8 is two squared.
TEST_F(ExportGguf, QueryScaleGoesIntoTheWeights) {
  for (const auto& [name, scaled, kept] :
       {std::tuple{"gemma-3-1b", "blk.1.attn_q_norm.weight", "blk.1.attn_q.weight"},
        {"gemma-2-2b", "blk.1.attn_q.weight", "blk.1.attn_k.weight"}}) {
    SCOPED_TRACE(name);
    const auto read = [&](double scalar, const char* tensor) {
      Config config = small(name);
      config.query_pre_attn_scalar = scalar;
      const GgufFile made = convert(make(config), {.type = "f32", .overwrite = true});
      const auto bytes = made.contents().find_tensor(tensor)->bytes;
      std::vector<float> values(bytes.size() / sizeof(float));
      std::memcpy(values.data(), bytes.data(), bytes.size());
      return values;
    };
    std::vector<float> twice = read(32, scaled);
    for (float& x : twice) x *= 2;
    EXPECT_TRUE(read(8, scaled) == twice);
    EXPECT_TRUE(read(8, kept) == read(32, kept));
  }
}

// An output matrix beside the embedding, which Gemma 3's configuration allows.
TEST_F(ExportGguf, AnUntiedHeadIsWritten) {
  Config config = small();
  config.tie_word_embeddings = false;
  const fs::path tied = make(small()), folder = scratch_.path() / "untied";
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << config_json(config, "float32");
  const std::vector<float> head(static_cast<size_t>(config.vocab_size * config.hidden_size), 0.5f);
  {
    const auto from = SafetensorsFile::open(tied / "model.safetensors");
    std::vector<TensorDeclaration> declarations = {
        {"lm_head.weight", DType::kF32, {config.vocab_size, config.hidden_size}}};
    for (const NamedTensor& t : from.tensors())
      declarations.push_back({t.name, t.view.dtype, t.view.shape});
    SafetensorsWriter writer(folder / "model.safetensors", declarations);
    writer.write(std::as_bytes(std::span(head)));
    for (const NamedTensor& t : from.tensors()) writer.write(t.view.bytes);
    writer.finish();
  }
  const GgufFile made = convert(folder, {.type = "f32"});
  const GgufTensor* output = made.contents().find_tensor("output.weight");
  ASSERT_NE(output, nullptr);
  EXPECT_EQ(output->shape, (std::vector<int64_t>{300, 64}));
  EXPECT_TRUE(bytes_of(output->bytes) == f32_bytes(head));
  EXPECT_EQ(convert(tied, {.overwrite = true}).contents().find_tensor("output.weight"), nullptr);
}

TEST_F(ExportGguf, BytesDoNotDependOnThreads) {
  for (const Expected& expected : kTypes) {
    export_gguf(kTiny, file_, {.type = expected.option, .overwrite = true, .threads = 1});
    const std::string one = scratch_.read("out.gguf");
    export_gguf(kTiny, file_, {.type = expected.option, .overwrite = true, .threads = 3});
    EXPECT_TRUE(scratch_.read("out.gguf") == one) << expected.option;
  }
}

TEST_F(ExportGguf, RefusesBadOptionsAndTargets) {
  const auto kind = [&](const GgufOptions& options, const fs::path& file) {
    try {
      export_gguf(kTiny, file, options);
    } catch (const Error& e) {
      return static_cast<int>(e.kind());
    }
    return -1;
  };
  EXPECT_EQ(kind({.type = "q5_0"}, file_), static_cast<int>(ErrorKind::kUsage));
  EXPECT_EQ(kind({.threads = -1}, file_), static_cast<int>(ErrorKind::kUsage));
  EXPECT_EQ(kind({}, scratch_.path() / "none" / "f"), static_cast<int>(ErrorKind::kResource));
  EXPECT_EQ(kind({}, scratch_.path() / std::string(300, 'x')),
            static_cast<int>(ErrorKind::kResource));
  EXPECT_EQ(kind({.overwrite = true}, scratch_.path()), static_cast<int>(ErrorKind::kInput));
  EXPECT_TRUE(scratch_.names().empty());

  scratch_.write("out.gguf", "before");
  EXPECT_EQ(error(kTiny), "out.gguf: is there already");
  EXPECT_EQ(scratch_.read("out.gguf"), "before");
  EXPECT_EQ(error(kTiny, {.overwrite = true}), "no error");
  EXPECT_NE(scratch_.read("out.gguf"), "before");
}

TEST_F(ExportGguf, RefusesWeightsThatDoNotFit) {
  const std::string tensor = "model.layers.1.mlp.up_proj.weight";
  const fs::path folder = make(small());
  poke(folder, tensor, 64 * 5, 65519);
  EXPECT_EQ(error(folder), "no error");
  poke(folder, tensor, 64 * 5, -65520);
  EXPECT_EQ(error(folder, {.overwrite = true}),
            "model: tensor " + tensor + ": row 5 has a value that F16 cannot hold");
  for (const char* type : {"f32", "bf16", "q8_0", "q4_0"})
    EXPECT_EQ(error(folder, {.type = type, .overwrite = true}), "no error") << type;
  for (const auto& [type, name] : {std::pair{"f32", "F32"},
                                   {"f16", "F16"},
                                   {"bf16", "BF16"},
                                   {"q8_0", "Q8_0"},
                                   {"q4_0", "Q4_0"}}) {
    poke(folder, tensor, 64 * 5, NAN);
    EXPECT_EQ(error(folder, {.type = type, .overwrite = true}),
              fmt::format("model: tensor {}: row 5 has a value that {} cannot hold", tensor, name));
  }

  Config odd = small();
  odd.intermediate_size = 80;
  EXPECT_EQ(error(make(odd), {.type = "q4_0", .overwrite = true}),
            "model: tensor model.layers.0.mlp.down_proj.weight: blocks of 32 do not divide its "
            "width of 80");
}

TEST_F(ExportGguf, RefusesAConfigThatLlamaCppCannotRun) {
  Config irregular = small();
  irregular.layer_types = {LayerType::kFull, LayerType::kSliding};
  EXPECT_EQ(error(make(irregular)),
            "model/config.json: field 'layer_types': full layers at irregular places, which "
            "llama.cpp's gemma3 cannot do");
  EXPECT_FALSE(fs::exists(file_));
}

// Asked to stop halfway, it leaves the folder as it was.
TEST_F(ExportGguf, InterruptedItLeavesNothing) {
  for (const bool before : {false, true}) {
    if (before) scratch_.write("out.gguf", "before");
    std::stop_source stop;
    double share = 1;
    const Watch watch{.progress =
                          [&](int64_t done, int64_t total) {
                            share = double(done) / double(total);
                            if (done > total / 2) stop.request_stop();
                          },
                      .stop = stop.get_token()};
    try {
      export_gguf(kTiny, file_, {.overwrite = true}, watch);
      ADD_FAILURE() << "was not interrupted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
    }
    EXPECT_LT(share, 0.75);
    EXPECT_EQ(scratch_.names(),
              before ? std::vector<std::string>{"out.gguf"} : std::vector<std::string>{});
    EXPECT_EQ(scratch_.read("out.gguf"), before ? "before" : "");
  }
}

}  // namespace
}  // namespace lapidary
