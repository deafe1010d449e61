// What the check at the end of a conversion lets pass, and what it does not: every right conversion
// of random models however narrow, and no drift of weights.
#include "generate/convert_check.h"

#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/log.h"
#include "lapidary/synth.h"

#include "gemma/load.h"
#include "io/test_files.h"
#include "quant/affine.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

struct Shape {
  const char* preset;
  int layers, width, heads, head_dim;
};

class ConvertCheck : public ::testing::Test {
 protected:
  ConvertCheck() {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  ~ConvertCheck() override { set_log_sink({}); }

  fs::path make(const Shape& shape, uint64_t seed, const char* dtype = "f32") {
    ShapeOverrides o;
    o.layers = shape.layers;
    o.hidden = shape.width;
    o.ffn = 2 * shape.width;
    o.heads = shape.heads;
    o.kv_heads = 1;
    o.head_dim = shape.head_dim;
    o.vocab = 300;
    const fs::path folder = scratch_.path() / "in";
    fs::remove_all(folder);
    synthesize(with_overrides(preset(shape.preset), o), {.dtype = dtype, .seed = seed}, folder);
    return folder;
  }

  // The message of the weights' check of each matrix of two models, and of the norms.
  static std::string weights_error(const Model& before, const Model& after, int bits,
                                   ConversionCheck& check) {
    const RowEncoder matrix = affine_encoder({bits, 64, DType::kF32});
    const RowEncoder norm = dense_encoder(DType::kF32);
    std::vector<TensorPair> pairs;
    const auto a = list_matrices(before), b = list_matrices(after);
    for (size_t i = 0; i < a.size(); ++i)
      pairs.push_back({fmt::format("matrix {}", i), rows_of(*a[i]), rows_of(*b[i]),
                       matrix.block_values, matrix.error_share});
    for (size_t i = 0; i < before.weights.layers.size(); ++i)
      pairs.push_back({fmt::format("norm {}", i),
                       row_of(before.weights.layers[i].post_attention_layernorm),
                       row_of(after.weights.layers[i].post_attention_layernorm), norm.block_values,
                       norm.error_share, false});
    ThreadPool pool(2);
    return error_of([&] { check_weights(pairs, "out", pool, check, [](int64_t) {}); });
  }
  static RowSource row_of(const std::vector<float>& norm) {
    return {1, std::ssize(norm),
            [&norm](int64_t, float* values) { std::ranges::copy(norm, values); }};
  }
  static std::string logits_error(const Model& before, const Model& after, ConversionCheck check) {
    const auto tokens = check_tokens(before, before.checkpoint.folder());
    return error_of([&] { check_logits(before, after, tokens, "out", 2, check, {}); });
  }

  ScratchFolder scratch_;
  const fs::path out_ = scratch_.path() / "out";
};

// A few of the shapes and seeds that docs/formats.md speaks of.
TEST_F(ConvertCheck, RightConversionsPass) {
  for (const Shape& shape : {Shape{"gemma-2b", 2, 64, 1, 64}, Shape{"gemma-2-2b", 3, 64, 2, 64},
                             Shape{"gemma-3-1b", 7, 128, 2, 64}})
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      const fs::path in = make(shape, seed, seed % 2 ? "f32" : "bf16");
      for (const int bits : {2, 3, 4, 5, 6, 8})
        EXPECT_NO_THROW(convert_folder(in, out_, {.bits = bits, .overwrite = true}))
            << shape.preset << " " << seed << " " << bits;
      for (const std::string& type : gguf_types()) {
        const GgufOptions options{.type = type, .overwrite = true};
        EXPECT_NO_THROW(export_gguf(in, scratch_.path() / "out.gguf", options))
            << shape.preset << " " << seed << " " << type;
      }
    }
}

// One matrix whose scales are 1.1 times what they should be, as its bits allow for by size: of
// affine codes that is a shift too. Those of Q4_0 and Q6_K move weights by a factor alone.
TEST_F(ConvertCheck, ScalesThatDriftAreFound) {
  const Model before = load_model(make({"gemma-3-1b", 1, 512, 2, 128}, 3));
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    convert_folder(scratch_.path() / "in", out_, {.bits = bits, .overwrite = true});
    Model after = load_model(out_);
    ConversionCheck check;
    EXPECT_EQ(weights_error(before, after, bits, check), "no error");
    WeightMatrix& drifted = after.weights.layers[0].gate_proj;
    std::vector<float> scales(static_cast<size_t>(drifted.rows * drifted.cols / 64));
    std::memcpy(scales.data(), drifted.scales, scales.size() * sizeof(float));
    for (float& scale : scales) scale *= 1.1f;
    drifted.scales = reinterpret_cast<const std::byte*>(scales.data());
    const std::string message = weights_error(before, after, bits, check);
    EXPECT_TRUE(message.starts_with("out: tensor matrix 5: weights differ by ")) << bits << message;
  }
}

TEST_F(ConvertCheck, ValuesThatDriftByAFactorAreFound) {
  const Model before = load_model(make({"gemma-3-1b", 1, 512, 2, 128}, 3));
  const WeightMatrix& matrix = before.weights.layers[0].gate_proj;
  ThreadPool pool(2);
  for (const auto& [encoder, after] : {std::pair{q4_0_encoder(), 1.1f},
                                       {q4_0_encoder(), 0.9f},
                                       {q8_0_encoder(), 1.1f},
                                       {q6_k_encoder(), 0.9f}}) {
    const auto error = [&](float factor) {
      RowSource made = rows_of(matrix);
      const float step = 0.1f * 0.02f;  // rounds as an encoding with errors of some percent does
      made.fill = [fill = made.fill, factor, step](int64_t row, float* values) {
        fill(row, values);
        for (int64_t i = 0; i < 512; ++i) values[i] = factor * step * std::round(values[i] / step);
      };
      const TensorPair pair{"t", rows_of(matrix), made, encoder.block_values, 1};
      ConversionCheck check;
      return error_of([&] { check_weights({&pair, 1}, "out", pool, check, [](int64_t) {}); });
    };
    EXPECT_EQ(error(1), "no error");
    EXPECT_NE(error(after).find("a common factor"), std::string::npos) << error(after);
  }
}

TEST_F(ConvertCheck, LayersThatChangedPlacesAreFound) {
  const fs::path in = make({"gemma-3-1b", 3, 128, 2, 64}, 5);
  for (const int bits : {3, 4, 8}) {
    convert_folder(in, out_, {.bits = bits, .overwrite = true});
    const Model before = load_model(in);
    Model after = load_model(out_);
    ConversionCheck check;
    ASSERT_EQ(weights_error(before, after, bits, check), "no error");
    ASSERT_EQ(logits_error(before, after, check), "no error");
    std::swap(after.weights.layers[0], after.weights.layers[2]);
    ConversionCheck ignored;
    EXPECT_NE(weights_error(before, after, bits, ignored), "no error") << bits;
    if (bits > 3) {
      EXPECT_NE(logits_error(before, after, check), "no error") << bits;
    }
  }
}

TEST_F(ConvertCheck, ANormThatWasForgottenIsFound) {
  const fs::path in = make({"gemma-3-1b", 3, 128, 2, 64}, 5);
  convert_folder(in, out_, {.bits = 8});
  const Model before = load_model(in);
  Model after = load_model(out_);
  ConversionCheck check;
  ASSERT_EQ(weights_error(before, after, 8, check), "no error");
  auto& norm = after.weights.layers[1].post_attention_layernorm;
  for (const float without : {0.0f, 1.0f}) {
    norm.assign(norm.size(), without);
    ConversionCheck ignored;
    EXPECT_TRUE(weights_error(before, after, 8, ignored)
                    .starts_with("out: tensor norm 1: weights differ by "));
  }
  norm.assign(norm.size(), 0.0f);
  EXPECT_NE(logits_error(before, after, check), "no error");
}

// One row that is much larger than the others hides none of their errors.
TEST_F(ConvertCheck, TheLimitCountsEveryRow) {
  const fs::path in = make({"gemma-3-1b", 2, 64, 1, 64}, 1);
  convert_folder(in, out_, {.bits = 4});
  const Model before = load_model(in), after = load_model(out_);
  ConversionCheck plain, with_row;
  ASSERT_EQ(weights_error(before, after, 4, plain), "no error");
  const RowEncoder encoder = affine_encoder({4, 64, DType::kF32});
  const auto raised = [](RowSource source) {
    source.fill = [fill = source.fill](int64_t row, float* values) {
      fill(row, values);
      if (row == 0)
        for (int64_t i = 0; i < 64; ++i) values[i] *= 1e4f;
    };
    return source;
  };
  const auto limit = [&](bool raise) {
    const RowSource a = rows_of(before.weights.embed_tokens),
                    b = rows_of(after.weights.embed_tokens);
    const TensorPair pair{"t", raise ? raised(a) : a, raise ? raised(b) : b, 64,
                          encoder.error_share};
    ThreadPool pool(1);
    ConversionCheck check;
    check_weights({&pair, 1}, "out", pool, check, [](int64_t) {});
    return check.logit_error_limit;
  };
  EXPECT_NEAR(limit(true), limit(false), 1e-6);
}

}  // namespace
}  // namespace lapidary
