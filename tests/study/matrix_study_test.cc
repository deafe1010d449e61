// Matrices of layers against numpy and MLX, their gradients against the reference's.
#include "lapidary/matrix_study.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/error.h"

#include "base/json.h"
#include "base/scratch_folder.h"
#include "io/safetensors.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

fs::path folder_of(const std::string& model) {
  return model == "tiny" ? kTiny : kGolden / model;
}

// What tools/make_matrix_golden.py says of a matrix.
const Json& golden_of(const std::string& model, const MatrixId& id) {
  static const Json golden = read_json_file(kGolden / "matrices.json");
  for (const Json& entry : golden["models"][model])
    if (entry["layer"] == id.layer && entry["name"] == id.name) return entry;
  throw std::out_of_range(id.name);
}
std::vector<Token> golden_ids() {
  return read_json_file(kGolden / "matrices.json")["ids"].get<std::vector<Token>>();
}

class Spectra : public ::testing::TestWithParam<const char*> {};

// Sums of n products in double, of the Gram matrix and of numpy's, differ by some n 2^-53 of the
// largest square: a value by about n 2^-53 of the largest squared over itself, which for those that
// are kept, above 2^-13 of the largest here, is below 1e-8.
TEST_P(Spectra, AreThoseOfNumpy) {
  const auto engine = Engine::load(folder_of(GetParam()), {.threads = 2});
  const std::vector<WeightSpectrum> spectra = weight_spectra(*engine);
  ASSERT_EQ(std::ssize(spectra), 7 * engine->config().num_hidden_layers);
  for (const WeightSpectrum& s : spectra) {
    const Json& want = golden_of(GetParam(), s.id);
    const auto near = [&](double got, const char* key) {
      EXPECT_NEAR(got / want[key].get<double>(), 1, 1e-8) << s.id.layer << " " << s.id.name << key;
    };
    EXPECT_EQ(s.rows, want["rows"]);
    EXPECT_EQ(s.cols, want["cols"]);
    near(s.norm, "norm");
    near(s.stable_rank, "stable_rank");
    near(s.effective_rank, "effective_rank");
    ASSERT_TRUE(s.tail_exponent);
    near(*s.tail_exponent, "tail_exponent");
    for (size_t i = 0; i < want["values"].size(); ++i)
      EXPECT_NEAR(s.values[i] / want["values"][i].get<double>(), 1, 1e-8);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, Spectra, ::testing::Values("tiny", "gemma2-gqa", "mlx-4bit-g64"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(QuantizationError, At4BitsIsThatOfMlxOnTheReferencesActivations) {
  for (const int threads : {1, 2}) {
    const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = threads});
    const std::vector<Token> ids = golden_ids();
    const QuantizationErrors errors = quantization_errors(engine, nullptr, ids);
    EXPECT_EQ(errors.sampled, std::ssize(ids));
    ASSERT_EQ(std::ssize(errors.matrices), 7 * engine->config().num_hidden_layers);
    for (const MatrixErrors& e : errors.matrices) {
      const Json& want = golden_of("tiny", e.id)["at_4_bits"];
      ASSERT_TRUE(e.at_4_bits);
      EXPECT_FALSE(e.own);
      // The codes are MLX's to the bit. Activations are within 1e-5 of the reference's.
      EXPECT_NEAR(e.at_4_bits->weights / want["weights"].get<double>(), 1, 1e-6);
      EXPECT_NEAR(e.at_4_bits->outputs / want["outputs"].get<double>(), 1, 1e-4)
          << e.id.layer << e.id.name;
    }
  }
}

TEST(QuantizationError, OfAModelOf4BitsIsThatOfRoundingItsOriginal) {
  const ScratchFolder scratch;
  const fs::path four = scratch.path() / "four";
  convert_folder(kTiny, four, {.bits = 4, .group_size = 64, .check = false, .threads = 2});
  const auto original = Engine::load(kTiny, {.threads = 2});
  const auto engine = Engine::load(four, {.threads = 2});
  const QuantizationErrors errors = quantization_errors(engine, original, golden_ids(), 16);
  EXPECT_EQ(errors.sampled, 16);
  for (const MatrixErrors& e : errors.matrices) {
    ASSERT_TRUE(e.at_4_bits && e.own);
    EXPECT_EQ(e.own->weights, e.at_4_bits->weights);
    EXPECT_EQ(e.own->outputs, e.at_4_bits->outputs);
    EXPECT_GT(e.own->weights, 0.05);
  }
  const QuantizationErrors none = quantization_errors(original, original, golden_ids(), 16);
  for (const MatrixErrors& e : none.matrices) EXPECT_EQ(e.own->outputs, 0);
}

TEST(QuantizationError, RefusesAnOriginalOfOtherShapes) {
  const auto a = Engine::load(kGolden / "gemma2-gqa", {}), b = Engine::load(kTiny, {});
  try {
    quantization_errors(a, b, golden_ids());
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("model.embed_tokens.weight: [320, 64] and [4096, 256]"),
              std::string::npos)
        << e.what();
  }
  // 96 columns are no groups of 64.
  const QuantizationErrors errors = quantization_errors(a, nullptr, std::vector<Token>{2, 3});
  for (const MatrixErrors& e : errors.matrices)
    EXPECT_EQ(e.at_4_bits.has_value(), e.id.name != "mlp.down_proj");
}

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = *file.find(name);
  std::vector<float> out(static_cast<size_t>(view.elements()));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

double norm_of(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares);
}

class Gradients : public ::testing::TestWithParam<const char*> {};

// The bounds are those of tests/train/backprop_test.cc: a gradient is off by 2e-5 of its norm at
// most, which then is, too.
TEST_P(Gradients, HaveTheNormsOfTheReferences) {
  const fs::path folder = kGolden / GetParam();
  const SafetensorsFile expected = SafetensorsFile::open(folder / "gradients.safetensors");
  const SafetensorsFile text = SafetensorsFile::open(folder / "golden.safetensors");
  std::vector<Token> ids(static_cast<size_t>(text.find("ids")->elements()));
  std::memcpy(ids.data(), text.find("ids")->bytes.data(), text.find("ids")->bytes.size());
  const auto engine = Engine::load(folder, {.threads = 2});
  const std::vector<WeightSpectrum> spectra = weight_spectra(*engine);
  const GradientFlow flow = gradient_flow(*engine, ids);
  EXPECT_NEAR(flow.nll, floats(expected, "loss")[0], 1e-5);
  ASSERT_EQ(flow.matrices.size(), spectra.size());
  for (size_t i = 0; i < spectra.size(); ++i) {
    const MatrixGradient& g = flow.matrices[i];
    const double want = norm_of(
        floats(expected, fmt::format("grad.model.layers.{}.{}.weight", g.id.layer, g.id.name)));
    EXPECT_NEAR(g.norm / want, 1, 2e-5) << g.id.layer << " " << g.id.name;
    EXPECT_NEAR(g.relative * spectra[i].norm / g.norm, 1, 1e-9);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, Gradients,
                         ::testing::Values("gemma1-mqa", "gemma2-gqa", "gemma3-v5"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GradientFlow, OfQuantisedWeightsDoesNotDependOnThreads) {
  std::vector<double> before;
  for (const int threads : {1, 3}) {
    const auto engine = Engine::load(kGolden / "mlx-4bit-g64", {.threads = threads});
    const GradientFlow flow = gradient_flow(*engine, std::vector<Token>{2, 9, 17, 40, 9, 17});
    std::vector<double> norms;
    for (const MatrixGradient& g : flow.matrices) {
      EXPECT_GT(g.norm, 0);
      norms.push_back(g.norm);
    }
    if (!before.empty()) {
      EXPECT_EQ(norms, before);
    }
    before = norms;
  }
}

TEST(GradientFlow, NeedsAPrediction) {
  const auto engine = Engine::load(kGolden / "gemma3-v5", {});
  EXPECT_THROW(gradient_flow(*engine, std::vector<Token>{2}), Error);
  EXPECT_THROW(gradient_flow(*engine, std::vector<Token>{2, 100000}), Error);
}

TEST(MatrixStudies, StopWhenAsked) {
  const auto engine = Engine::load(kTiny, {.threads = 2});
  std::stop_source stop;
  stop.request_stop();
  const Watch watch{{}, stop.get_token()};
  const std::vector<Token> ids = golden_ids();
  EXPECT_THROW(weight_spectra(*engine, watch), Error);
  EXPECT_THROW(gradient_flow(*engine, ids, watch), Error);
  EXPECT_THROW(quantization_errors(engine, nullptr, ids, 16, watch), Error);
}

}  // namespace
}  // namespace lapidary
