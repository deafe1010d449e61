// GGUF files as models: their configuration, weights in place, vocabulary, and what is wrong with
// damaged ones.
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "base/float16.h"
#include "base/json.h"
#include "base/rng.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "generate/gguf_vocabulary.h"
#include "generate/small_models.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/test_files.h"
#include "quant/decode.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = LAPIDARY_SOURCE_DIR "/models/tiny";

// A file in the making.
struct Parts {
  struct Tensor {
    GgufTensorDeclaration declaration;
    std::string bytes;
  };
  GgufMetadata metadata;
  std::vector<Tensor> tensors;

  void write(const fs::path& path) const {
    std::vector<GgufTensorDeclaration> declarations;
    for (const Tensor& t : tensors) declarations.push_back(t.declaration);
    GgufWriter writer(path, metadata, declarations);
    for (const Tensor& t : tensors) writer.write(as_span(t.bytes));
    writer.finish();
  }
  template <class T>
  void set(const std::string& key, T value) {
    for (auto& [name, old] : metadata)
      if (name == key) {
        old = std::move(value);
        return;
      }
    metadata.emplace_back(key, std::move(value));
  }
  void erase(const std::string& key) {
    std::erase_if(metadata, [&](const auto& item) { return item.first == key; });
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& t : tensors)
      if (t.declaration.name == name) return t;
    throw std::runtime_error(name);
  }
  template <class T>
  std::vector<T>& list(const std::string& key) {
    for (auto& [name, value] : metadata)
      if (name == key) return std::get<std::vector<T>>(std::get<GgufArray>(value));
    throw std::runtime_error(key);
  }
};

Config small(const std::string& name = "gemma-3-1b", int width = 256) {
  Config config = small_config(name, {.layers = 7, .hidden = width, .ffn = 2 * width});
  config.query_pre_attn_scalar = config.head_dim;
  return config;
}

std::string text_of(const std::vector<float>& values) {
  std::string bytes(values.size() * 4, '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<float> random_floats(int64_t count, uint64_t stream, float scale) {
  const CounterRng rng(23, stream);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * rng.normal(i);
  return values;
}

// `values` made blocks of one scale each, by the nearest code of a likely range. Good enough to
// have weights of a likely size in every format.
std::string blocks_of(const BlockFormat& format, int64_t count, uint64_t stream) {
  const CounterRng rng(29, stream);
  std::string bytes(static_cast<size_t>(count / format.cols * format.bytes), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(rng.bits(i) & 0xff);
  const auto set_half = [&](size_t at, float x) {
    const uint16_t bits = to_float16(x).bits;
    std::memcpy(&bytes[at], &bits, 2);
  };
  const float step = 0.1f / static_cast<float>(1 << format.bits);
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(format.bytes)) {
    if (format.format == WeightFormat::kQ6_K) {
      set_half(at + 208, step / 64);
    } else if (format.name.ends_with("_K")) {
      set_half(at, step / 32);
      set_half(at + 2, 0.05f / 32);
    } else {
      set_half(at, step);
      if (format.name.ends_with("_1")) set_half(at + 2, -0.05f);
    }
  }
  return bytes;
}

// A model whose matrices are of `format`, or what that decodes to as f32.
Parts model_of(const Config& config, const BlockFormat* format, bool decoded) {
  Parts parts;
  parts.metadata = {{"general.architecture", gguf_architecture(config)}};
  for (auto& item : gguf_config(config, "config")) parts.metadata.push_back(item);
  for (auto& item : gguf_placeholder_vocabulary(config.vocab_size, "config"))
    parts.metadata.push_back(item);
  Weights weights;
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  uint64_t stream = 0;
  visit_tensors(config, weights, [&](const std::string& name, auto&, int64_t rows, int64_t cols) {
    Parts::Tensor tensor{{gguf_tensor_name(config, name), GgmlType::kF32, {rows}}, ""};
    if (cols > 0) tensor.declaration.shape = {rows, cols};
    ++stream;
    if (cols == 0) {
      std::vector<float> norm = random_floats(rows, stream, 0.1f);
      for (float& x : norm) x += 1;
      tensor.bytes = text_of(norm);
    } else if (format == nullptr) {
      tensor.bytes = text_of(random_floats(rows * cols, stream, 0.05f));
    } else if (decoded) {
      std::vector<float> values(static_cast<size_t>(rows * cols));
      decode_blocks(format->format, as_span(blocks_of(*format, rows * cols, stream)),
                    values.data());
      tensor.bytes = text_of(values);
    } else {
      for (uint32_t number = 0; number < 40; ++number)
        if (const auto* type = find_ggml_type(number); type && type->name == format->name)
          tensor.declaration.type = type->type;
      tensor.bytes = blocks_of(*format, rows * cols, stream);
    }
    parts.tensors.push_back(std::move(tensor));
  });
  return parts;
}

const std::vector<Token> kIds = {2, 17, 205, 299, 4, 4, 120, 77, 31, 250, 9, 140};

std::vector<float> logits_of(const fs::path& model, Compute compute) {
  const auto engine = Engine::load(model, {.compute = compute, .threads = 2});
  Session session(engine);
  std::vector<float> all;
  session.score(kIds, [&](int64_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
  });
  return all;
}

double relative_rms(const std::vector<float>& got, const std::vector<float>& expected) {
  double difference = 0, sum = 0, squares = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(double{got[i]} - expected[i], 2);
    sum += expected[i];
    squares += double{expected[i]} * expected[i];
  }
  const auto n = static_cast<double>(got.size());
  return std::sqrt(difference / n / (squares / n - std::pow(sum / n, 2)));
}

class GgufInput : public ::testing::Test {
 protected:
  ScratchFolder scratch_;
  const fs::path file_ = scratch_.path() / "m.gguf";
};

// Blocks are used in place by the same sums as floats, which `exact` shows bit for bit; `fast`
// rounds activations, by a uniform error of a step of 127 per largest value of 256: of normal
// values 0.7 % of their size, four times one after another in each of the 7 layers.
TEST_F(GgufInput, BlocksComputeWhatTheyDecodeTo) {
  const Config config = small();
  for (const BlockFormat& format : kBlockFormats) {
    SCOPED_TRACE(format.name);
    const fs::path decoded = scratch_.path() / "decoded.gguf";
    model_of(config, &format, true).write(decoded);
    model_of(config, &format, false).write(file_);
    const auto expected = logits_of(decoded, Compute::kExact);
    EXPECT_GT(relative_rms(std::vector<float>(expected.size()), expected), 0.5);
    EXPECT_TRUE(logits_of(file_, Compute::kExact) == expected);
    const double error = relative_rms(logits_of(file_, Compute::kFast), expected);
    RecordProperty(std::string(format.name), fmt::format("{:.2e}", error));
    EXPECT_GT(error, 0);
    EXPECT_LE(error, std::sqrt(4 * 7.0) * 0.007);
    const auto engine = Engine::load(file_, {});
    EXPECT_EQ(engine->weight_format(), format.name);
    EXPECT_FALSE(engine->has_tokenizer());
  }
}

// As exported, the built-in model is the same model.
TEST_F(GgufInput, AnExportComputesWhatTheFolderDoes) {
  for (const char* type : {"f32", "bf16"}) {
    export_gguf(kTiny, file_, {.type = type, .overwrite = true});
    for (const Compute compute : {Compute::kExact, Compute::kFast})
      EXPECT_TRUE(logits_of(file_, compute) == logits_of(kTiny, compute)) << type;
  }
  const auto engine = Engine::load(file_, {});
  EXPECT_EQ(engine->weight_format(), "BF16");
  EXPECT_EQ(engine->parameters(), Engine::load(kTiny, {})->parameters());
  const auto eos = engine->generation_config().eos_token_id;
  EXPECT_EQ(eos, (std::vector<Token>{1, *engine->tokenizer().find("<end_of_turn>")}));
}

TEST_F(GgufInput, EveryPresetKeepsItsConfiguration) {
  for (const std::string& name : preset_names()) {
    SCOPED_TRACE(name);
    const Config config = preset(name);
    GgufContents contents;
    contents.metadata = {{"general.architecture", gguf_architecture(config)}};
    for (auto& item : gguf_config(config, "c")) contents.metadata.push_back(item);
    contents.tensors.push_back(
        {"token_embd.weight", GgmlType::kF32, {config.vocab_size, config.hidden_size}, {}});
    Config back = read_gguf_config(contents, "f");
    EXPECT_NEAR(back.rms_norm_eps, config.rms_norm_eps, 1e-12);  // f32 in the file
    back.rms_norm_eps = config.rms_norm_eps;
    EXPECT_EQ(config_json(back, ""), config_json(config, ""));
  }
}

// What llama.cpp takes for granted where older files say nothing.
TEST_F(GgufInput, AbsentKeysHaveLlamaCppsDefaults) {
  const auto read = [](const Config& config, const std::vector<std::string>& without) {
    Parts parts = model_of(config, nullptr, false);
    for (const std::string& key : without) parts.erase(gguf_architecture(config) + "." + key);
    GgufContents contents;
    contents.metadata = parts.metadata;
    contents.tensors.push_back({"token_embd.weight", GgmlType::kF32, {300, 256}, {}});
    return read_gguf_config(contents, "f");
  };
  const Config two = read(small("gemma-2-2b"),
                          {"attention.sliding_window", "rope.freq_base", "attn_logit_softcapping",
                           "rope.freq_base_swa", "attention.sliding_window_pattern"});
  EXPECT_EQ(two.sliding_window, 4096);
  EXPECT_EQ(two.attn_logit_softcapping, 50);
  EXPECT_EQ(two.rope_full.theta, 1e4);
  EXPECT_TRUE(two.is_sliding(0) && !two.is_sliding(1));
  const Config three =
      read(small(), {"rope.freq_base_swa", "attention.sliding_window_pattern", "vocab_size"});
  EXPECT_EQ(three.rope_sliding.theta, 1e4);
  EXPECT_TRUE(three.is_sliding(4) && !three.is_sliding(5));
  EXPECT_FALSE(read(small(), {"attention.sliding_window"}).is_sliding(0));
}

// ---- vocabularies

Tokenizer through_gguf(const fs::path& folder) {
  const Tokenizer original = Tokenizer::load(folder);
  GgufContents contents;
  contents.metadata = gguf_vocabulary(folder, original.size() + 3);
  return std::move(*read_gguf_vocabulary(contents, "f"));
}

TEST(GgufVocabulary, GivesTheIdsOfTheOriginal) {
  const char* set = std::getenv("LAPIDARY_TOKENIZERS");
  const fs::path real = set != nullptr ? set : LAPIDARY_BINARY_DIR "/tokenizers";
  const fs::path golden = LAPIDARY_SOURCE_DIR "/tests/golden/tokenizer";
  for (const fs::path& folder : {kTiny, real / "gemma2", real / "gemma3"}) {
    if (!Tokenizer::present(folder)) continue;
    SCOPED_TRACE(folder.string());
    const Tokenizer original = Tokenizer::load(folder), again = through_gguf(folder);
    EXPECT_EQ(again.bos(), original.bos());
    EXPECT_EQ(again.end_of_turn(), original.end_of_turn());
    for (Token id = 0; id < original.size(); ++id) {
      ASSERT_EQ(again.piece(id), original.piece(id));
      ASSERT_EQ(again.is_control(id), original.is_control(id)) << original.piece(id);
    }
    int64_t compared = 0;
    for (const Json& item : read_json_file(golden / "strings.json")) {
      const auto text = item.get<std::string>();
      if (text.find("▁") != std::string::npos) continue;  // see tokenizer.h
      const std::vector<Token> ids = original.encode(text);
      EXPECT_EQ(again.encode(text), ids) << text;
      EXPECT_EQ(again.decode(ids), original.decode(ids)) << text;
      ++compared;
    }
    EXPECT_GE(compared, 1900);
  }
}

// ---- damage

struct Damage {
  const char* name;
  std::function<void(Parts&)> apply;
  const char* message;  // after "m.gguf: "
};

const Damage kDamages[] = {
    {"no architecture", [](Parts& p) { p.erase("general.architecture"); },
     "key 'general.architecture': missing"},
    {"architecture of another type", [](Parts& p) { p.set("general.architecture", uint32_t{3}); },
     "key 'general.architecture': expected a string, found u32"},
    {"another architecture",
     [](Parts& p) { p.set("general.architecture", std::string("llama\n")); },
     "key 'general.architecture': 'llama\\x0a' is not supported, expected gemma, gemma2 or gemma3"},
    {"part of a split model",
     [](Parts& p) {
       p.set("split.count", uint16_t{3});
       p.set("split.no", uint16_t{0});
       p.set("split.tensors.count", int32_t{80});
     },
     "part 1 of 3 of a model, expected a name that ends in -00001-of-00003.gguf"},
    {"no width", [](Parts& p) { p.erase("gemma3.embedding_length"); },
     "key 'gemma3.embedding_length': missing"},
    {"no layers", [](Parts& p) { p.set("gemma3.block_count", uint32_t{0}); },
     "key 'gemma3.block_count': expected 1 to 10000, found 0"},
    {"far too many layers", [](Parts& p) { p.set("gemma3.block_count", uint64_t{1} << 63); },
     "key 'gemma3.block_count': expected 1 to 10000, found 9223372036854775808"},
    {"more layers than tensors", [](Parts& p) { p.set("gemma3.block_count", uint32_t{8}); },
     "tensor blk.7.attn_norm.weight is missing"},
    {"fewer layers than tensors", [](Parts& p) { p.set("gemma3.block_count", uint32_t{6}); },
     "tensor blk.6.attn_norm.weight is none of gemma3"},
    {"negative count", [](Parts& p) { p.set("gemma3.feed_forward_length", int32_t{-512}); },
     "key 'gemma3.feed_forward_length': expected 1 to 1000000, found -512"},
    {"count that is a float", [](Parts& p) { p.set("gemma3.attention.head_count", 2.0f); },
     "key 'gemma3.attention.head_count': expected an integer, found f32"},
    {"count by layer",
     [](Parts& p) {
       p.set("gemma3.attention.head_count_kv", GgufArray(std::vector<int32_t>{1, 1}));
     },
     "key 'gemma3.attention.head_count_kv': expected an integer, found array of i32"},
    {"heads that do not divide",
     [](Parts& p) { p.set("gemma3.attention.head_count_kv", uint32_t{3}); },
     "key 'gemma3.attention.head_count_kv': expected a divisor of head_count 2, found 3"},
    {"other values than keys",
     [](Parts& p) { p.set("gemma3.attention.value_length", uint32_t{64}); },
     "key 'gemma3.attention.value_length': expected 128, found 64"},
    {"partial rotation", [](Parts& p) { p.set("gemma3.rope.dimension_count", uint32_t{64}); },
     "key 'gemma3.rope.dimension_count': expected 128, found 64"},
    {"head of odd size",
     [](Parts& p) {
       p.set("gemma3.attention.key_length", uint32_t{24});
       p.set("gemma3.attention.value_length", uint32_t{24});
     },
     "key 'gemma3.attention.key_length': 24 is not a multiple of 16"},
    {"no epsilon", [](Parts& p) { p.erase("gemma3.attention.layer_norm_rms_epsilon"); },
     "key 'gemma3.attention.layer_norm_rms_epsilon': missing"},
    {"epsilon that is no number",
     [](Parts& p) { p.set("gemma3.attention.layer_norm_rms_epsilon", NAN); },
     "key 'gemma3.attention.layer_norm_rms_epsilon': expected a number, found nan"},
    {"rotation by a negative base", [](Parts& p) { p.set("gemma3.rope.freq_base", -1e6f); },
     "key 'gemma3.rope.freq_base': expected a number above 0, found -1000000"},
    {"unknown scaling of positions",
     [](Parts& p) { p.set("gemma3.rope.scaling.type", std::string("yarn")); },
     "key 'gemma3.rope.scaling.type': 'yarn' is not supported, expected linear or none"},
    {"window of nothing", [](Parts& p) { p.set("gemma3.attention.sliding_window", uint32_t{0}); },
     "key 'gemma3.attention.sliding_window': expected 1 to 10000000, found 0"},
    {"another vocabulary size", [](Parts& p) { p.set("gemma3.vocab_size", uint32_t{299}); },
     "key 'gemma3.vocab_size': 299, but token_embd.weight has 300 rows"},
    {"no embedding", [](Parts& p) { p.tensor("token_embd.weight").declaration.name = "x"; },
     "tensor token_embd.weight is missing"},
    {"embedding of one dimension",
     [](Parts& p) { p.tensor("token_embd.weight").declaration.shape = {300 * 256}; },
     "tensor token_embd.weight: shape [76800], expected [vocabulary, 256]"},
    {"matrix of another shape",
     [](Parts& p) {
       p.tensor("blk.2.ffn_down.weight").declaration.shape = {512, 256};
     },
     "tensor blk.2.ffn_down.weight: shape [512, 256], expected [256, 512]"},
    {"matrix of integers",
     [](Parts& p) { p.tensor("blk.0.attn_q.weight").declaration.type = GgmlType::kI32; },
     "tensor blk.0.attn_q.weight: type I32 is not supported here, expected F32, F16, BF16, Q4_0, "
     "Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K"},
    {"norm of blocks",
     [](Parts& p) {
       auto& norm = p.tensor("output_norm.weight");
       norm.declaration.type = GgmlType::kQ8_0;
       norm.bytes.resize(8 * 34);
     },
     "tensor output_norm.weight: type Q8_0 is not supported here, expected F32, F16 or BF16"},
    {"norm that is no number",
     [](Parts& p) {
       const float nan = NAN;
       std::memcpy(&p.tensor("blk.1.attn_norm.weight").bytes[12], &nan, 4);
     },
     "tensor blk.1.attn_norm.weight: value 3 is not finite"},
    {"tensor too many",
     [](Parts& p) {
       p.tensors.push_back({{"rope_freqs.weight", GgmlType::kF32, {2}}, "12345678"});
     },
     "tensor rope_freqs.weight is none of gemma3"},
    {"no mask", [](Parts& p) { p.set("lapidary.set_block.mask_token_id", std::string("<mask>")); },
     "key 'lapidary.set_block.mask_token_id': expected an integer, found string"},
    {"blocks of less than the least",
     [](Parts& p) {
       p.set("lapidary.set_block.mask_token_id", uint32_t{4});
       p.set("lapidary.set_block.block_min", uint32_t{4});
       p.set("lapidary.set_block.block_max", uint32_t{3});
     },
     "key 'lapidary.set_block.block_max': expected 4 to 2147483647, found 3"},
    {"norm missing", [](Parts& p) { p.tensor("blk.3.attn_q_norm.weight").declaration.name = "y"; },
     "tensor blk.3.attn_q_norm.weight is missing"},
};

TEST_F(GgufInput, DamagedModelsAreRefusedInOneLine) {
  const Parts whole = model_of(small(), nullptr, false);
  whole.write(file_);
  ASSERT_NO_THROW(Engine::load(file_, {}));
  for (const Damage& damage : kDamages) {
    SCOPED_TRACE(damage.name);
    Parts parts = whole;
    damage.apply(parts);
    parts.write(file_);
    EXPECT_EQ(error_of([&] { Engine::load(file_, {}); }, scratch_.path().string() + "/"),
              std::string("m.gguf: ") + damage.message);
  }
}

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kTypes = "tokenizer.ggml.token_type";

const Damage kVocabularyDamages[] = {
    {"another kind", [](Parts& p) { p.set("tokenizer.ggml.model", std::string("gpt2")); },
     "key 'tokenizer.ggml.model': 'gpt2' is not supported, expected llama (SentencePiece)"},
    {"no tokens", [](Parts& p) { p.erase(kTokens); }, "key 'tokenizer.ggml.tokens': missing"},
    {"no scores", [](Parts& p) { p.erase(kScores); }, "key 'tokenizer.ggml.scores': missing"},
    {"scores of another type",
     [](Parts& p) { p.set(kScores, GgufArray(std::vector<double>(4096))); },
     "key 'tokenizer.ggml.scores': expected array of f32, found array of f64"},
    {"scores without a list", [](Parts& p) { p.set(kScores, 1.0f); },
     "key 'tokenizer.ggml.scores': expected array of f32, found f32"},
    {"a score too few", [](Parts& p) { p.list<float>(kScores).pop_back(); },
     "key 'tokenizer.ggml.scores': 4095 elements, but there are 4096 tokens"},
    {"a type too many", [](Parts& p) { p.list<int32_t>(kTypes).push_back(1); },
     "key 'tokenizer.ggml.token_type': 4097 elements, but there are 4096 tokens"},
    {"unknown type", [](Parts& p) { p.list<int32_t>(kTypes)[9] = 257; },
     "key 'tokenizer.ggml.token_type': token 9 has the unknown type 257"},
    {"score that is no number", [](Parts& p) { p.list<float>(kScores)[300] = NAN; }, "piece 300 ("},
    {"token twice",
     [](Parts& p) { p.list<std::string>(kTokens)[400] = p.list<std::string>(kTokens)[401]; },
     "pieces 400 and 401 are both "},
    {"empty token", [](Parts& p) { p.list<std::string>(kTokens)[400] = ""; }, "piece 400 is empty"},
    {"token that is not UTF-8", [](Parts& p) { p.list<std::string>(kTokens)[400] = "\xff"; },
     "piece 400 ("},
    {"no <bos>", [](Parts& p) { p.list<std::string>(kTokens)[2] = "<begin>"; },
     "piece '<bos>' is missing"},
    {"another <bos>", [](Parts& p) { p.set("tokenizer.ggml.bos_token_id", uint32_t{7}); },
     "key 'tokenizer.ggml.bos_token_id': expected 2, the id of <bos>, found 7"},
    {"<bos> out of range", [](Parts& p) { p.set("tokenizer.ggml.bos_token_id", uint32_t{4096}); },
     "key 'tokenizer.ggml.bos_token_id': expected 0 to 4095, found 4096"},
    {"end out of range", [](Parts& p) { p.set("tokenizer.ggml.eos_token_id", uint32_t{70000}); },
     "key 'tokenizer.ggml.eos_token_id': expected 0 to 4095, found 70000"},
    {"spaces before texts", [](Parts& p) { p.set("tokenizer.ggml.add_space_prefix", true); },
     "key 'tokenizer.ggml.add_space_prefix': true is not supported: no Gemma puts a space before "
     "texts"},
    {"flag of another type", [](Parts& p) { p.set("tokenizer.ggml.add_bos_token", uint8_t{1}); },
     "key 'tokenizer.ggml.add_bos_token': expected a bool, found u8"},
    {"tokens without rows",
     [](Parts& p) {
       p.list<std::string>(kTokens).push_back("more");
       p.list<float>(kScores).push_back(-9999);
       p.list<int32_t>(kTypes).push_back(1);
     },
     "key 'tokenizer.ggml.tokens': 4097 tokens, but token_embd.weight has 4096 rows"},
    {"hot sampling", [](Parts& p) { p.set("general.sampling.temp", 1000.0f); },
     "key 'general.sampling.temp': expected 0 to 100, found 1000"},
};

TEST_F(GgufInput, DamagedVocabulariesAreRefusedInOneLine) {
  Config config = small("gemma-3-1b", 64);
  config.vocab_size = 4096;
  Parts whole = model_of(config, nullptr, false);
  std::erase_if(whole.metadata, [](const auto& item) {
    return item.first.starts_with("tokenizer.") || item.first.starts_with("lapidary.");
  });
  for (auto& item : gguf_vocabulary(kTiny, 4096)) whole.metadata.push_back(item);
  whole.write(file_);
  ASSERT_TRUE(Engine::load(file_, {})->has_tokenizer());
  for (const Damage& damage : kVocabularyDamages) {
    SCOPED_TRACE(damage.name);
    Parts parts = whole;
    damage.apply(parts);
    parts.write(file_);
    const std::string found =
        error_of([&] { Engine::load(file_, {}); }, scratch_.path().string() + "/");
    EXPECT_TRUE(found.starts_with(std::string("m.gguf: ") + damage.message)) << found;
  }
}

// ---- split models

class SplitGguf : public GgufInput {
 protected:
  SplitGguf() : whole_(model_of(small(), nullptr, false)) {
    for (int i = 0; i < 3; ++i) parts_.push_back(part(i));
    parts_[0].metadata.insert(parts_[0].metadata.end(), whole_.metadata.begin(),
                              whole_.metadata.end());
    for (size_t i = 0; i < whole_.tensors.size(); ++i)
      parts_[1 + (i > 50)].tensors.push_back(whole_.tensors[i]);
  }
  Parts part(int number) const {
    Parts made;
    made.set("split.no", static_cast<uint16_t>(number));
    made.set("split.count", uint16_t{3});
    made.set("split.tensors.count", static_cast<int32_t>(whole_.tensors.size()));
    return made;
  }
  fs::path path(int number) const {
    return scratch_.path() / fmt::format("m-{:05}-of-00003.gguf", number + 1);
  }
  void write() const {
    for (int i = 0; i < 3; ++i) parts_[static_cast<size_t>(i)].write(path(i));
  }
  std::string error(int number = 0) const {
    return error_of([&] { Engine::load(path(number), {}); }, scratch_.path().string() + "/");
  }

  Parts whole_;
  std::vector<Parts> parts_;
};

TEST_F(SplitGguf, ComputesWhatOneFileDoes) {
  whole_.write(file_);
  write();
  EXPECT_EQ(logits_of(path(0), Compute::kExact), logits_of(file_, Compute::kExact));
  const auto folder = [&](const fs::path& from, const char* name) {
    convert_folder(from, scratch_.path() / name, {});
    return scratch_.read(std::string(name) + "/README.md");
  };
  const std::string readme = folder(path(0), "of-parts");
  for (int i = 0; i < 3; ++i)
    EXPECT_NE(readme.find("| " + path(i).filename().string() + " | "), std::string::npos) << readme;
  folder(file_, "of-one");
  const Checkpoint a = Checkpoint::open(scratch_.path() / "of-parts"),
                   b = Checkpoint::open(scratch_.path() / "of-one");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i)
    EXPECT_TRUE(std::ranges::equal(a.tensors()[i].view.bytes, b.tensors()[i].view.bytes));
}

TEST_F(SplitGguf, DamagedPartsAreRefusedInOneLine) {
  write();
  EXPECT_EQ(error(1), "m-00002-of-00003.gguf: part 2 of 3 of a model");
  fs::rename(path(2), scratch_.path() / "away");
  EXPECT_EQ(error(), "m-00003-of-00003.gguf: missing: part 3 of 3 of m-00001-of-00003.gguf");
  fs::copy(path(1), path(2));
  EXPECT_EQ(error(), "m-00003-of-00003.gguf: key 'split.no': expected 2, found 1");
  const auto with = [&](const std::function<void(Parts&)>& damage) {
    const Parts good = parts_[2];
    damage(parts_[2]);
    write();
    parts_[2] = good;
    return error();
  };
  EXPECT_EQ(with([](Parts& p) { p.set("split.count", uint16_t{4}); }),
            "m-00003-of-00003.gguf: key 'split.count': expected 3, found 4");
  EXPECT_EQ(with([](Parts& p) { p.erase("split.no"); }),
            "m-00003-of-00003.gguf: key 'split.no': missing");
  EXPECT_EQ(with([](Parts& p) { p.tensors.pop_back(); }),
            fmt::format("m-00001-of-00003.gguf: key 'split.tensors.count': {}, but the 3 parts "
                        "have {}",
                        whole_.tensors.size(), whole_.tensors.size() - 1));
  const std::string first = whole_.tensors[0].declaration.name;
  EXPECT_EQ(with([&](Parts& p) { p.tensors[0] = whole_.tensors[0]; }),
            "m-00003-of-00003.gguf: tensor '" + first + "': is in m-00002-of-00003.gguf too");
  const std::string bytes = scratch_.read("m-00003-of-00003.gguf");
  scratch_.write("m-00003-of-00003.gguf", bytes.substr(0, bytes.size() - 100));
  EXPECT_TRUE(error().starts_with("m-00003-of-00003.gguf: tensor ")) << error();
}

// Wherever the file ends, and whatever the bytes of its header are, there is one line.
TEST_F(GgufInput, TruncatedAnywhere) {
  model_of(small("gemma-3-1b", 32), nullptr, false).write(file_);
  std::string bytes = scratch_.read("m.gguf");
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 7) {
    scratch_.write("cut.gguf", bytes.substr(0, size));
    EXPECT_NE(error_of([&] { Engine::load(scratch_.path() / "cut.gguf", {}); }), "no error")
        << size;
  }
}

}  // namespace
}  // namespace lapidary
