// Blends of adapters, against PEFT's and against sums multiplied out.
#include "lapidary/blend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/log.h"

#include "base/float16.h"
#include "gemma/adapter_file.h"
#include "gemma/low_rank.h"
#include "io/safetensors.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using Eigen::MatrixXd;

const fs::path kAdapters = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden/adapters";
const std::vector<BlendPart> kBoth = {{kAdapters / "plain", 0.7}, {kAdapters / "other", 0.5}};
const std::vector<BlendPart> kNegated = {{kAdapters / "plain", 1}, {kAdapters / "other", -0.6}};

MatrixXd update(const AdapterMatrix& m) {
  return m.scale * matrix_b(m) * matrix_a(m);
}

std::map<std::string, MatrixXd> updates(const fs::path& path) {
  const AdapterFile file = load_adapter(path);
  std::map<std::string, MatrixXd> all;
  for (const AdapterMatrix& m : file.adapter.matrices) all[m.target] = update(m);
  return all;
}

struct Blended {
  ScratchFolder folder;
  Blend made;
  AdapterFile file;
  Blended(const std::vector<BlendPart>& parts, const BlendOptions& options) {
    made = blend(parts, folder.path() / "x", options);
    file = load_adapter(folder.path() / "x");
  }
};

MatrixXd golden(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = *file.find(name);
  MatrixXd m(view.shape[0], view.shape[1]);
  for (int64_t i = 0; i < m.rows(); ++i)
    for (int64_t j = 0; j < m.cols(); ++j)
      m(i, j) = float_at(view.bytes.data(), view.dtype, i * m.cols() + j);
  return m;
}

TEST(Blend, IsWhatPeftMakes) {
  const SafetensorsFile expected = SafetensorsFile::open(kAdapters / "blend.safetensors");
  int compared = 0;
  for (const char* name :
       {"linear", "cat", "svd", "ties", "dare-linear", "dare-ties", "magnitude-prune", "ties-svd",
        "dare-linear-svd", "dare-ties-svd", "magnitude-prune-svd"})
    for (const auto& [label, parts] : {std::pair{"both", kBoth}, {"negated", kNegated}}) {
      BlendOptions options{.method = blend_method_named(name), .seed = 7};
      if (options.method > BlendMethod::kLinear) options.density = 0.6;
      const bool truncates = std::string_view(name).ends_with("svd");
      if (truncates) options.rank = 4;
      const Blended blended(parts, options);
      for (const AdapterMatrix& m : blended.file.adapter.matrices) {
        std::string key = fmt::format("{}.{}.{}", name, label, m.target);
        std::replace(key.begin(), key.begin() + static_cast<int64_t>(std::strlen(name)), '-', '_');
        if (expected.find(key + ".A") == nullptr) continue;
        ++compared;
        const MatrixXd a = golden(expected, key + ".A"), b = golden(expected, key + ".B");
        ASSERT_EQ(a.rows(), m.rank) << key;
        // Their SVD is of a product in f32, and signs of singular vectors are free.
        if (truncates) {
          EXPECT_LT((update(m) - b * a).norm(), 1e-5 * (b * a).norm()) << key;
          continue;
        }
        EXPECT_LT((m.scale * matrix_a(m) - a).cwiseAbs().maxCoeff(), 1e-6) << key;
        EXPECT_LT((matrix_b(m) - b).cwiseAbs().maxCoeff(), 1e-6) << key;
      }
    }
  EXPECT_EQ(compared, 11 * 2 * 2);
}

// The rules of the format's own scale: PEFT has one alpha for all, here too.
TEST(Blend, OneAdapterStaysItself) {
  const auto before = updates(kAdapters / "plain");
  for (const char* name : blend_method_names()) {
    const Blended blended({{kAdapters / "plain", 1}}, {.method = blend_method_named(name)});
    ASSERT_EQ(blended.file.adapter.matrices.size(), before.size());
    for (const AdapterMatrix& m : blended.file.adapter.matrices) {
      const MatrixXd& want = before.at(m.target);
      EXPECT_LT((update(m) - want).norm(), 1e-6 * want.norm()) << name << " " << m.target;
    }
  }
}

TEST(Blend, SumsAreExactWhateverTheRanks) {
  const std::vector<BlendPart> parts = {{kAdapters / "plain", 0.7}, {kAdapters / "patterns", -2}};
  const auto plain = updates(kAdapters / "plain"), patterns = updates(kAdapters / "patterns");
  for (const auto& [name, rank] : {std::pair{"cat", 0}, {"task-arithmetic", 0}, {"svd", 9}}) {
    const Blended blended(parts, {.method = blend_method_named(name), .rank = rank});
    for (const AdapterMatrix& m : blended.file.adapter.matrices) {
      MatrixXd want = 0.7 * plain.at(m.target);
      if (patterns.contains(m.target)) want -= 2 * patterns.at(m.target);
      EXPECT_LT((update(m) - want).norm(), 1e-6 * want.norm()) << name << " " << m.target;
    }
    EXPECT_LT(blended.made.truncated, 1e-9);
  }
}

// The blend of the adapters "plain" and "other", each changed before, and what was warned of.
struct BlendOfChanged {
  template <class Fn>
  explicit BlendOfChanged(Fn&& change) {
    const ScratchFolder folder;
    std::vector<BlendPart> parts;
    for (const auto& [name, second] : {std::pair{"plain", false}, {"other", true}}) {
      AdapterFile changed = load_adapter(kAdapters / name);
      change(changed, second);
      parts.push_back({folder.path() / name, 0.5});
      save_adapter(changed, AdapterFormat::kPeft, parts.back().adapter, true);
    }
    set_log_sink([&](LogLevel, std::string_view text) { warning = text; });
    file = Blended(parts, {}).file;
    set_log_sink({});
  }

  AdapterFile file;
  std::string warning;
};

TEST(Blend, KeepsWhatAllSayOfSetBlocks) {
  using Said = std::optional<SetBlockTraining>;
  const auto of = [](const Said& a, const Said& b) {
    return BlendOfChanged(
        [&](AdapterFile& file, bool second) { file.adapter.set_block = second ? b : a; });
  };
  const SetBlockTraining one{4, 2, 16}, other{4, 2, 8};
  EXPECT_EQ(of({}, {}).file.adapter.set_block, std::nullopt);
  EXPECT_EQ(of(one, one).file.adapter.set_block, one);
  EXPECT_EQ(of(one, one).warning, "");
  for (const auto& [a, b] : {std::pair<Said, Said>{one, other}, {one, {}}, {{}, one}}) {
    const BlendOfChanged blend = of(a, b);
    EXPECT_EQ(blend.file.adapter.set_block, std::nullopt);
    EXPECT_NE(blend.warning.find("not trained on the same set blocks"), std::string::npos)
        << blend.warning;
  }
}

TEST(Blend, IsForTheBaseThatIsNamedFirst) {
  const auto of = [](const std::string& a, const std::string& b) {
    return BlendOfChanged([&](AdapterFile& file, bool second) {
      file.base_model = second ? b : a;
      file.multimodal = file.base_model == "images";
    });
  };
  for (const auto& [a, b, base] : {std::tuple{"", "", ""},
                                   {"text", "text", "text"},
                                   {"", "images", "images"},
                                   {"text", "", "text"}}) {
    const BlendOfChanged blend = of(a, b);
    EXPECT_EQ(blend.file.base_model, base);
    EXPECT_EQ(blend.file.multimodal, blend.file.base_model == "images");
    EXPECT_EQ(blend.warning, "");
  }
  const BlendOfChanged blend = of("images", "text");
  EXPECT_EQ(blend.file.base_model, "images");
  EXPECT_TRUE(blend.file.multimodal);
  EXPECT_NE(blend.warning.find("its base is images"), std::string::npos) << blend.warning;
}

TEST(Blend, SvdIsTheNearestOfItsRank) {
  const Blended blended(kBoth, {.method = BlendMethod::kSvd, .rank = 3});
  const auto x = updates(kAdapters / "plain"), y = updates(kAdapters / "other");
  double dropped = 0, total = 0;
  for (const AdapterMatrix& m : blended.file.adapter.matrices) {
    const MatrixXd sum = 0.7 * x.at(m.target) + 0.5 * y.at(m.target);
    const Eigen::VectorXd values = Eigen::JacobiSVD<MatrixXd>(sum).singularValues();
    const double least = values.tail(values.size() - 3).norm();
    EXPECT_NEAR((update(m) - sum).norm(), least, 1e-6 * sum.norm()) << m.target;
    dropped += least * least;
    total += sum.squaredNorm();
  }
  EXPECT_NEAR(blended.made.truncated, std::sqrt(dropped / total), 1e-9);
}

// Of what pruning leaves, which has any rank: here of a matrix multiplied out by the test.
TEST(Blend, PrunedUpdatesBecomeTheNearestOfTheirRank) {
  const Blended blended({{kAdapters / "plain", 1}},
                        {.method = BlendMethod::kMagnitudePruneSvd, .density = 0.25, .rank = 3});
  double dropped = 0, total = 0;
  for (const AdapterMatrix& m : blended.file.adapter.matrices) {
    MatrixXd pruned = updates(kAdapters / "plain").at(m.target);
    std::vector<double> sizes(pruned.data(), pruned.data() + pruned.size());
    for (double& size : sizes) size = -std::abs(size);
    std::ranges::sort(sizes);
    const double least = -sizes[sizes.size() / 4 - 1];
    for (double& value : pruned.reshaped())
      if (std::abs(value) < least) value = 0;
    const Eigen::VectorXd values = Eigen::JacobiSVD<MatrixXd>(pruned).singularValues();
    const double rest = values.tail(values.size() - 3).norm();
    EXPECT_NEAR((update(m) - pruned).norm(), rest, 1e-6 * pruned.norm()) << m.target;
    dropped += rest * rest;
    total += pruned.squaredNorm();
  }
  EXPECT_NEAR(blended.made.truncated, std::sqrt(dropped / total), 1e-6);
}

TEST(Blend, SlerpKeepsToTheArc) {
  const auto x = updates(kAdapters / "plain"), y = updates(kAdapters / "other");
  const Blended blended({{kAdapters / "plain", 3}, {kAdapters / "other", 1}},
                        {.method = BlendMethod::kSlerp});
  for (const AdapterMatrix& m : blended.file.adapter.matrices) {
    const MatrixXd &a = x.at(m.target), &b = y.at(m.target);
    const double angle = std::acos(a.cwiseProduct(b).sum() / a.norm() / b.norm());
    const MatrixXd want =
        (std::sin(0.75 * angle) * a + std::sin(0.25 * angle) * b) / std::sin(angle);
    EXPECT_LT((update(m) - want).norm(), 1e-6 * want.norm()) << m.target;
  }
  // Parallel ones are on a line.
  const Blended same({{kAdapters / "plain", 1}, {kAdapters / "plain", 1}},
                     {.method = BlendMethod::kSlerp});
  for (const AdapterMatrix& m : same.file.adapter.matrices)
    EXPECT_LT((update(m) - x.at(m.target)).norm(), 1e-6 * x.at(m.target).norm());
}

TEST(Blend, DareKeepsTheMean) {
  MatrixXd mean;
  constexpr int kDraws = 200;
  const std::string target = "model.layers.0.mlp.up_proj";
  for (int seed = 0; seed < kDraws; ++seed) {
    const Blended blended(
        {{kAdapters / "plain", 1}},
        {.method = BlendMethod::kDareLinear, .density = 0.5, .seed = static_cast<uint64_t>(seed)});
    for (const AdapterMatrix& m : blended.file.adapter.matrices)
      if (m.target == target)
        mean = seed == 0 ? MatrixXd(matrix_a(m)) : MatrixXd(mean + matrix_a(m));
  }
  const AdapterFile plain = load_adapter(kAdapters / "plain");
  for (const AdapterMatrix& m : plain.adapter.matrices)
    if (m.target == target) {
      const MatrixXd want = std::sqrt(m.scale) * matrix_a(m);
      // The mean of n draws of x or nothing is off by x / sqrt(n).
      EXPECT_LT((mean / kDraws - want).norm(), 1.3 * want.norm() / std::sqrt(kDraws));
    }
}

TEST(Blend, WeightsByLayer) {
  ScratchFolder folder;
  folder.write("w.json", R"({"*.layers.0.*": [2, 0], "*.mlp.*": [0, 1]})");
  const Blended blended(kBoth, {.layer_weights = folder.path() / "w.json"});
  const auto x = updates(kAdapters / "plain"), y = updates(kAdapters / "other");
  const auto expect = [&](const std::string& target, double a, double b) {
    for (const AdapterMatrix& m : blended.file.adapter.matrices)
      if (m.target == target) {
        const MatrixXd want = 0.7 * a * x.at(target) + 0.5 * b * y.at(target);
        EXPECT_LT((update(m) - want).norm(), 1e-6 * want.norm()) << target;
      }
  };
  expect("model.layers.0.mlp.up_proj", 2, 0);
  expect("model.layers.1.mlp.up_proj", 0, 1);
  expect("model.layers.1.self_attn.q_proj", 1, 1);
}

TEST(Blend, OverlapIsThatOfTheUpdates) {
  const auto overlaps = compare_adapters({kAdapters / "plain", kAdapters / "other"});
  const auto x = updates(kAdapters / "plain"), y = updates(kAdapters / "other");
  ASSERT_EQ(overlaps.size(), 49u);
  for (const AdapterOverlap& o : overlaps) {
    const MatrixXd &a = x.at(o.target), &b = y.at(o.target);
    EXPECT_NEAR(o.norm_a, a.norm(), 1e-9 * a.norm());
    EXPECT_NEAR(o.cosine, a.cwiseProduct(b).sum() / a.norm() / b.norm(), 1e-9);
    // Of the whole updates' own singular vectors.
    const Eigen::BDCSVD<MatrixXd> u(a, Eigen::ComputeThinU), v(b, Eigen::ComputeThinU);
    const MatrixXd between = u.matrixU().leftCols(4).transpose() * v.matrixU().leftCols(4);
    const Eigen::VectorXd cosines = Eigen::JacobiSVD<MatrixXd>(between).singularValues();
    ASSERT_EQ(o.column_cosines.size(), 4u);
    for (size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(o.column_cosines[i], cosines[static_cast<int64_t>(i)], 1e-6) << o.target;
  }
  for (const AdapterOverlap& o : compare_adapters({kAdapters / "plain", kAdapters / "plain"})) {
    EXPECT_NEAR(o.cosine, 1, 1e-12);
    for (const double c : o.row_cosines) EXPECT_NEAR(c, 1, 1e-12);
  }
}

TEST(Blend, WhatCannotBe) {
  ScratchFolder folder;
  const auto error = [&](const std::vector<BlendPart>& parts, const BlendOptions& options) {
    return error_of([&] { blend(parts, folder.path() / "x", options); }, kAdapters.string());
  };
  const BlendPart plain{kAdapters / "plain"};
  EXPECT_EQ(error({}, {}), "no adapter given to blend");
  EXPECT_EQ(error({{plain.adapter, NAN}}, {}), "/plain: weight nan is not a number");
  EXPECT_EQ(error({plain}, {.method = BlendMethod::kCat, .density = 0.5}),
            "--density: cat has none");
  EXPECT_EQ(error({plain}, {.method = BlendMethod::kTies, .density = 0}),
            "--density: 0 given, expected more than 0 and at most 1");
  EXPECT_EQ(error({plain}, {.method = BlendMethod::kTies, .rank = 4}),
            "--rank: is of svd and *-svd; that of ties follows from the adapters");
  EXPECT_EQ(error({plain, plain, plain}, {.method = BlendMethod::kSlerp}),
            "slerp: 3 adapters given, expected two");
  EXPECT_EQ(error({plain, {kAdapters / "patterns"}}, {.method = BlendMethod::kLinear}),
            "linear: model.layers.0.self_attn.o_proj has rank 4 in one adapter and 5 in another");
  EXPECT_EQ(error({plain, {kAdapters / "mlx"}}, {}).substr(0, 6), "/mlx: ");
  EXPECT_EQ(
      error({{kAdapters / "dora"}}, {}),
      "/dora: is of DoRA, which changes matrices by more than a low rank: expected plain LoRA");
  folder.write("w.json", R"({"*": [1]})");
  EXPECT_EQ(
      error_of(
          [&] {
            blend({plain, plain}, folder.path() / "x", {.layer_weights = folder.path() / "w.json"});
          },
          folder.path().string()),
      "/w.json: '*': expected 2 numbers, one for each adapter");
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"w.json"}));
}

}  // namespace
}  // namespace lapidary
