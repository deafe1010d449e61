#include "io/quantization.h"

#include "io/test_files.h"

namespace lapidary {
namespace {

std::optional<QuantizationSpec> parse(const std::string& text) {
  const Json json = parse_json(text, "c");
  return parse_quantization(JsonObject(json, "c"));
}

TEST(Quantization, AbsentIsNone) {
  EXPECT_FALSE(parse("{}").has_value());
  EXPECT_FALSE(parse(R"({"quantization": null})").has_value());
}

TEST(Quantization, EitherKeyAndTheFirstOfBoth) {
  EXPECT_EQ(parse(R"({"quantization_config": {"group_size": 32, "bits": 8}})")->defaults,
            (AffineQuantization{8, 32}));
  EXPECT_EQ(parse(R"({"quantization_config": {"group_size": 32, "bits": 8},
                      "quantization": {"group_size": 128, "bits": 3, "mode": "affine"}})")
                ->defaults,
            (AffineQuantization{3, 128}));
}

TEST(Quantization, OverridesAreFoundByAnyPrefix) {
  const auto spec = parse(R"({"quantization": {"group_size": 32, "bits": 8,
      "language_model.model.layers.0.mlp.down_proj": {"group_size": 128, "bits": 6},
      "model.layers.1.mlp.down_proj": {"bits": 2, "mode": "affine"},
      "model.layers.2.mlp.down_proj": true,
      "language_model.lm_head": false}})");
  ASSERT_TRUE(spec.has_value());
  for (const char* prefix : {"model.", "language_model.model.", "model.language_model."}) {
    const std::string p = prefix;
    EXPECT_EQ(spec->lookup(p + "layers.0.mlp.down_proj"), (AffineQuantization{6, 128}));
    // As MLX has it: what an override leaves out is the module's default, not the block's.
    EXPECT_EQ(spec->lookup(p + "layers.1.mlp.down_proj"), (AffineQuantization{2, 64}));
    EXPECT_EQ(spec->lookup(p + "layers.2.mlp.down_proj"), (AffineQuantization{8, 32}));
    EXPECT_EQ(spec->lookup(p + "layers.3.mlp.down_proj"), (AffineQuantization{8, 32}));
  }
  EXPECT_FALSE(spec->lookup("lm_head").has_value());
}

TEST(Quantization, WhatIsWrittenIsReadBack) {
  QuantizationSpec spec;
  spec.defaults = {4, 32};
  spec.overrides["model.layers.0.mlp.down_proj"] = AffineQuantization{6, 64};
  spec.overrides["lm_head"] = std::nullopt;
  const Json json = {{"quantization", quantization_json(spec)}};
  const auto read = parse_quantization(JsonObject(json, "c"));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->defaults, spec.defaults);
  EXPECT_EQ(read->overrides, spec.overrides);
}

TEST(Quantization, WhatCannotBeIsRefused) {
  const auto message = [](const std::string& block) {
    return error_of([&] { parse(R"({"quantization_config": )" + block + "}"); });
  };
  const std::string c = "c: quantization_config: field ";
  EXPECT_EQ(message(R"({"quant_method": "gptq", "bits": 4, "group_size": 128})"),
            c + "'quant_method': \"gptq\" is not supported, expected weights that MLX quantised or "
                "none");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "mode": "mxfp4"})"),
            c + "'mode': 'mxfp4' is not supported, expected 'affine'");
  EXPECT_EQ(message(R"({"bits": 7, "group_size": 32})"),
            c + "'bits': expected one of 2, 3, 4, 5, 6, 8, found 7");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 16})"),
            c + "'group_size': expected one of 32, 64, 128, found 16");
  EXPECT_EQ(message(R"({"bits": 4})"), c + "'group_size': missing");
  EXPECT_EQ(message(R"({"bits": "4", "group_size": 32})"),
            c + "'bits': expected an integer, found \"4\"");
  EXPECT_EQ(message("[]"), "c: field 'quantization_config': expected an object, found []");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "linear_class": "x"})"),
            c + "'linear_class': expected an object or false for a module's path");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "lm_head": {"bits": 1}})"),
            "c: quantization_config: lm_head: field 'bits': expected one of 2, 3, 4, 5, 6, 8, "
            "found 1");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "lm_head": {"mode": "nvfp4"}})"),
            "c: quantization_config: lm_head: field 'mode': 'nvfp4' is not supported, expected "
            "'affine'");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "lm_head": {"bit": 8}})"),
            "c: quantization_config: lm_head: field 'bit': unknown, expected bits, group_size or "
            "mode");
  EXPECT_EQ(message(R"({"bits": 4, "group_size": 32, "lm_head": false,
                        "language_model.lm_head": {"bits": 8}})"),
            c + "'lm_head': contradicts another prefix of 'lm_head'");
}

}  // namespace
}  // namespace lapidary
