#include "lapidary/synth.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/error.h"
#include "lapidary/session.h"

#include "base/scratch_folder.h"
#include "generate/small_models.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

class Synth : public ::testing::Test {
 protected:
  static Config small(const std::string& name) {
    ShapeOverrides sizes{.layers = 7, .hidden = 128, .ffn = 256};
    if (preset(name).sliding_window > 0) sizes.window = 32;
    return small_config(name, sizes);
  }

  static std::map<std::string, std::string> contents(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder)) {
      std::ifstream file(entry.path(), std::ios::binary);
      files[entry.path().filename()] = {std::istreambuf_iterator<char>(file), {}};
    }
    return files;
  }

  const ScratchFolder scratch_;
  const fs::path root_ = scratch_.path() / "root";
};

// config.json as written by the presets reads back as what was written: all ten, all fields.
TEST_F(Synth, PresetsReadBack) {
  EXPECT_EQ(preset_names().size(), 10u);
  fs::create_directories(root_);
  for (const std::string& name : preset_names()) {
    SCOPED_TRACE(name);
    const Config wanted = preset(name);
    std::ofstream(root_ / "config.json") << config_json(wanted, "bfloat16");
    const Config got = read_config(root_);
    EXPECT_EQ(got.family, wanted.family);
    EXPECT_EQ(got.model_type, wanted.model_type);
    EXPECT_EQ(got.layer_types, wanted.layer_types);
    EXPECT_EQ(got.query_pre_attn_scalar, wanted.query_pre_attn_scalar);
    EXPECT_EQ(got.rope_full.theta, wanted.rope_full.theta);
    EXPECT_EQ(got.rope_full.factor, wanted.rope_full.factor);
    EXPECT_EQ(got.attn_logit_softcapping, wanted.attn_logit_softcapping);
    EXPECT_EQ(got.final_logit_softcapping, wanted.final_logit_softcapping);
    EXPECT_EQ(config_json(got, "bfloat16"), config_json(wanted, "bfloat16"));
  }
}

// Parameters of the text models as their technical reports count them (embedding and the rest, in
// millions), and the layers that see everything.
TEST_F(Synth, PresetsHaveThePublishedSizes) {
  const auto parameters = [](const Config& c) {
    const int64_t d = c.hidden_size, f = c.intermediate_size;
    const int64_t layer = d * (2 * c.q_dim() + 2 * c.kv_dim()) + 3 * d * f;
    return static_cast<double>(c.vocab_size * d + c.num_hidden_layers * layer) / 1e9;
  };
  const std::map<std::string, double> published = {
      {"gemma-2b", 2.51},     {"gemma-7b", 8.54},      {"gemma-2-2b", 2.614},
      {"gemma-2-9b", 9.242},  {"gemma-2-27b", 27.227}, {"gemma-3-270m", 0.268},
      {"gemma-3-1b", 1.000},  {"gemma-3-4b", 3.880},   {"gemma-3-12b", 11.766},
      {"gemma-3-27b", 27.009}};
  for (const std::string& name : preset_names())
    EXPECT_NEAR(parameters(preset(name)), published.at(name), 0.005) << name;
  const auto full = [](const std::string& name) {
    std::string layers;
    const Config c = preset(name);
    for (int i = 0; i < c.num_hidden_layers; ++i)
      if (!c.is_sliding(i)) layers += fmt::format("{} ", i);
    return layers;
  };
  EXPECT_EQ(full("gemma-3-270m"), "5 11 17 ");
  EXPECT_EQ(full("gemma-3-4b"), "5 11 17 23 29 ");
  EXPECT_EQ(full("gemma-2-2b"), "1 3 5 7 9 11 13 15 17 19 21 23 25 ");
}

TEST_F(Synth, BytesDoNotDependOnThreads) {
  for (const int bits : {0, 4, 5}) {
    SCOPED_TRACE(bits);
    SynthOptions o;
    o.bits = bits;
    o.group_size = 32;
    o.threads = 1;
    synthesize(small("gemma-3-1b"), o, root_ / "one");
    o.threads = 3;
    synthesize(small("gemma-3-1b"), o, root_ / "three");
    EXPECT_TRUE(contents(root_ / "one") == contents(root_ / "three"));
    o.seed = 1;
    synthesize(small("gemma-3-1b"), o, root_ / "other");
    EXPECT_FALSE(contents(root_ / "one") == contents(root_ / "other"));
    fs::remove_all(root_);
  }
}

TEST_F(Synth, LoadsAndRuns) {
  for (const char* name : {"gemma-2b", "gemma-2-2b", "gemma-3-4b"})
    for (const int bits : {0, 2, 3, 4, 5, 6, 8})
      for (const char* dtype : {"bf16", "f16", "f32"}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name, bits, dtype));
        SynthOptions o;
        o.bits = bits;
        o.dtype = dtype;
        synthesize(small(name), o, root_ / "model");
        EngineOptions options;
        options.threads = 1;
        const auto engine = Engine::load(root_ / "model", options);
        Session session(engine);
        const std::vector<Token> ids = {2, 17, 5};
        const auto logits = session.append(ids);
        ASSERT_EQ(logits.size(), 300u);
        for (const float x : logits) ASSERT_TRUE(std::isfinite(x));
        EXPECT_EQ(engine->generation_config().top_k, 64);
        fs::remove_all(root_);
      }
}

TEST_F(Synth, LeavesNothingBehind) {
  std::stop_source stop;
  const Watch watch{.progress =
                        [&](int64_t done, int64_t total) {
                          if (done > total / 2) stop.request_stop();
                        },
                    .stop = stop.get_token()};
  try {
    synthesize(small("gemma-3-1b"), {}, root_ / "a" / "b", watch);
    ADD_FAILURE() << "was not interrupted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_FALSE(fs::exists(root_));
}

TEST_F(Synth, RefusesWhatCannotBe) {
  const auto kind = [&](auto&& fn) {
    try {
      fn();
    } catch (const Error& e) {
      EXPECT_FALSE(fs::exists(root_ / "bad"));
      return static_cast<int>(e.kind());
    }
    return -1;
  };
  const int usage = static_cast<int>(ErrorKind::kUsage);
  EXPECT_EQ(kind([] { preset("gemma-9"); }), usage);
  const auto with = [&](auto&& change) {
    return kind([&] {
      SynthOptions o;
      change(o);
      synthesize(small("gemma-3-1b"), o, root_ / "bad");
    });
  };
  EXPECT_EQ(with([](auto& o) { o.bits = 7; }), usage);
  EXPECT_EQ(with([](auto& o) { o.bits = 4, o.group_size = 48; }), usage);
  EXPECT_EQ(with([](auto& o) { o.dtype = "f64"; }), usage);
  EXPECT_EQ(with([](auto& o) { o.threads = -1; }), usage);
  EXPECT_EQ(kind([&] {
              Config c = small("gemma-3-1b");
              c.hidden_size = 96;
              SynthOptions o;
              o.bits = 4;
              synthesize(c, o, root_ / "bad");
            }),
            usage);
  for (const auto change :
       {+[](ShapeOverrides& o) { o.layers = 0; }, +[](ShapeOverrides& o) { o.kv_heads = 3; },
        +[](ShapeOverrides& o) { o.head_dim = 20; }})
    EXPECT_EQ(kind([&] {
                ShapeOverrides o;
                change(o);
                with_overrides(preset("gemma-3-1b"), o);
              }),
              usage);
  synthesize(small("gemma-3-1b"), {}, root_ / "model");
  EXPECT_EQ(kind([&] { synthesize(small("gemma-3-1b"), {}, root_ / "model"); }),
            static_cast<int>(ErrorKind::kInput));
}

}  // namespace
}  // namespace lapidary
