// What rounding activations to 8 bits costs: the built-in model, quantised, scores a text with
// --compute fast and with --compute exact.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/session.h"

#include "base/float16.h"
#include "base/json.h"
#include "base/scratch_folder.h"
#include "gemma/load.h"
#include "io/safetensors.h"
#include "kernels/kernels.h"
#include "quant/affine.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = LAPIDARY_SOURCE_DIR;

struct NamedBytes {
  TensorDeclaration declaration;
  std::vector<std::byte> bytes;
};

// The three tensors of an affine matrix, or the one of a norm.
void add_matrix(const std::string& path, const WeightMatrix& w, const AffineFormat& format,
                std::vector<NamedBytes>& out) {
  const auto bytes = [&](int64_t per_row) {
    return std::vector<std::byte>(static_cast<size_t>(w.rows * per_row));
  };
  const int64_t groups = w.cols / format.group;
  NamedBytes codes{{path + ".weight", DType::kU32, {w.rows, w.cols * format.bits / 32}},
                   bytes(format.code_bytes(w.cols))};
  NamedBytes scales{{path + ".scales", format.dtype, {w.rows, groups}},
                    bytes(format.scale_bytes(w.cols))};
  NamedBytes biases{{path + ".biases", format.dtype, {w.rows, groups}},
                    bytes(format.scale_bytes(w.cols))};
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int64_t n = 0; n < w.rows; ++n) {
    best_kernels().dequantize_row(w, n, row.data());
    affine_encode(row, format,
                  {codes.bytes.data() + n * format.code_bytes(w.cols),
                   scales.bytes.data() + n * format.scale_bytes(w.cols),
                   biases.bytes.data() + n * format.scale_bytes(w.cols)});
  }
  out.push_back(std::move(codes));
  out.push_back(std::move(scales));
  out.push_back(std::move(biases));
}

void add_norm(const std::string& name, const std::vector<float>& norm,
              std::vector<NamedBytes>& out) {
  NamedBytes tensor{{name, DType::kF32, {std::ssize(norm)}}, {}};
  std::vector<float> stored(norm);
  for (float& x : stored) x -= 1;  // the file holds what is added to 1
  tensor.bytes.resize(stored.size() * 4);
  std::memcpy(tensor.bytes.data(), stored.data(), tensor.bytes.size());
  out.push_back(std::move(tensor));
}

// Puts models/tiny with every matrix in an affine format into `folder`.
void write_quantized_tiny(const AffineFormat& format, const fs::path& folder) {
  const Model model = load_model(kRoot / "models/tiny");
  std::vector<NamedBytes> tensors;
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>)
                    add_matrix(name.substr(0, name.rfind(".weight")), field, format, tensors);
                  else
                    add_norm(name, field, tensors);
                });
  std::vector<TensorDeclaration> declarations;
  for (const NamedBytes& tensor : tensors) declarations.push_back(tensor.declaration);
  SafetensorsWriter writer(folder / "model.safetensors", declarations);
  for (const NamedBytes& tensor : tensors) writer.write(tensor.bytes);
  writer.finish();
  Json config = read_json_file(kRoot / "models/tiny/config.json");
  config["quantization"] = {{"bits", format.bits}, {"group_size", format.group}};
  std::ofstream(folder / "config.json") << config.dump();
}

std::vector<double> log_probabilities(std::span<const float> logits) {
  double largest = -INFINITY, sum = 0;
  for (float x : logits) largest = std::max(largest, double{x});
  for (float x : logits) sum += std::exp(x - largest);
  std::vector<double> log_p;
  for (float x : logits) log_p.push_back(x - largest - std::log(sum));
  return log_p;
}

// Mean Kullback-Leibler divergence of what `options` compute from what exact computation does, over
// the positions of a text, in nats.
double mean_divergence(const fs::path& folder, std::span<const Token> ids,
                       const EngineOptions& options) {
  const auto rows = [&](const EngineOptions& chosen) {
    Session session(Engine::load(folder, chosen));
    std::vector<std::vector<double>> list;
    session.score(ids, [&](int64_t, std::span<const float> logits) {
      list.push_back(log_probabilities(logits));
    });
    return list;
  };
  const auto exact = rows({.compute = Compute::kExact, .threads = 2}), other = rows(options);
  double total = 0;
  for (size_t t = 0; t < exact.size(); ++t)
    for (size_t i = 0; i < exact[t].size(); ++i)
      total += std::exp(exact[t][i]) * (exact[t][i] - other[t][i]);
  return total / static_cast<double>(exact.size());
}

std::vector<Token> test_text() {
  const Json golden = read_json_file(kRoot / "tests/golden/tiny/greedy.json");
  return golden["nll_ids"].get<std::vector<Token>>();
}

TEST(Quality, FastKeepsTheDistributionsOfTheQuantisedBuiltInModel) {
  const auto text = test_text();
  for (const AffineFormat format :
       {AffineFormat{4, 64}, AffineFormat{4, 32}, AffineFormat{8, 64}}) {
    const ScratchFolder folder;
    write_quantized_tiny(format, folder.path());
    const double divergence =
        mean_divergence(folder.path(), text, {.compute = Compute::kFast, .threads = 2});
    RecordProperty(fmt::format("kld_{}_{}", format.bits, format.group),
                   fmt::format("{:.2e}", divergence));
    EXPECT_LE(divergence, 0.002) << format.bits << " bits, groups of " << format.group;
    EXPECT_GT(divergence, 0) << "the two modes did the same";
  }
}

TEST(Quality, CodedKeysAndValuesKeepTheDistributionsOfTheBuiltInModel) {
  double last = 0;
  for (const KvType type : {KvType::kBF16, KvType::kQ8, KvType::kQ4}) {
    const double divergence =
        mean_divergence(kRoot / "models/tiny", test_text(),
                        {.compute = Compute::kExact, .kv_type = type, .threads = 2});
    RecordProperty(fmt::format("kld_kv_{}", name_of(type)), fmt::format("{:.2e}", divergence));
    EXPECT_LE(divergence, type == KvType::kQ4 ? 0.01 : 0.002) << name_of(type);
    EXPECT_GT(divergence, last) << name_of(type) << " is no coarser than the type before";
    last = divergence;
  }
}

}  // namespace
}  // namespace lapidary
