// Figures of layers against their definitions, and against HF transformers where it has them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/layer_study.h"
#include "lapidary/session.h"

#include "base/statistics.h"
#include "study/golden_models.h"

namespace lapidary {
namespace {

class Layers : public GoldenModel {
 protected:
  // The reference's rows at a point; empty where it kept none.
  std::vector<std::vector<double>> rows(int layer, const char* point) const {
    const TensorView* tensor = golden->find(tap_name(layer, point));
    std::vector<std::vector<double>> list;
    if (tensor == nullptr) return list;
    const std::vector<float> values = floats(*tensor);
    for (auto at = values.begin(); at != values.end(); at += tensor->shape[1])
      list.emplace_back(at, at + tensor->shape[1]);
    return list;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Layers, kGoldenModels, golden_name);

double length_of(const std::vector<double>& row) {
  return std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
}

double mean_length(const std::vector<std::vector<double>>& rows) {
  double sum = 0;
  for (const auto& row : rows) sum += length_of(row);
  return sum / static_cast<double>(rows.size());
}

// Linear CKA by its definition on features, with double sums.
double cka(std::vector<std::vector<double>> a, std::vector<std::vector<double>> b) {
  const auto centre = [](auto& rows) {
    for (size_t k = 0; k < rows[0].size(); ++k) {
      double mean = 0;
      for (const auto& row : rows) mean += row[k] / static_cast<double>(rows.size());
      for (auto& row : rows) row[k] -= mean;
    }
  };
  centre(a);
  centre(b);
  const auto hsic = [](const auto& x, const auto& y) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < x.size(); ++j)
        sum += std::inner_product(x[i].begin(), x[i].end(), x[j].begin(), 0.0) *
               std::inner_product(y[i].begin(), y[i].end(), y[j].begin(), 0.0);
    return sum;
  };
  return hsic(a, b) / std::sqrt(hsic(a, a) * hsic(b, b));
}

TEST_P(Layers, NormsAndLikenessAreThoseOfTheReference) {
  const LayerStudy study = study_layers(engine, ids);
  ASSERT_EQ(std::ssize(study.layers), engine->config().num_hidden_layers);
  int compared = 0;
  for (const LayerFigures& f : study.layers) {
    const auto stream = rows(f.layer, "hook_resid_post");
    if (stream.empty()) continue;
    EXPECT_NEAR(f.norm / mean_length(stream), 1, 1e-5);
    EXPECT_NEAR(f.attention_norm / mean_length(rows(f.layer, "hook_attn_out")), 1, 1e-5);
    EXPECT_NEAR(f.mlp_norm / mean_length(rows(f.layer, "hook_mlp_out")), 1, 1e-5);
    const auto gates = rows(f.layer, "mlp.hook_pre"), neurons = rows(f.layer, "mlp.hook_post");
    double open = 0, working = 0;
    for (size_t i = 0; i < gates.size(); ++i) {
      open += static_cast<double>(std::ranges::count_if(gates[i], [](double g) { return g > 0; }));
      double sum = 0, squares = 0;
      for (const double a : neurons[i]) sum += std::abs(a), squares += a * a;
      working += sum * sum / (squares * static_cast<double>(neurons[i].size()));
    }
    const auto n = static_cast<double>(gates.size());
    EXPECT_NEAR(f.gate_open, open / n / static_cast<double>(gates[0].size()), 1e-9);
    EXPECT_NEAR(f.neurons, working / n, 1e-5);
    const double likeness =
        study.similarity[0][static_cast<size_t>(f.layer) + 1];  // with the embedding
    EXPECT_NEAR(likeness, cka(rows(-1, "hook_embed"), stream), 1e-4);
    ++compared;
  }
  EXPECT_GE(compared, 2);
}

TEST_P(Layers, TheLensAtTheLastLayerIsTheModelItself) {
  const LayerStudy study = study_layers(engine, ids, {.lens_sample = 1000});
  Session session(engine);
  double nll = 0, entropy = 0, relative = 0;
  std::vector<double> ranks;
  session.score(ids, [&](int64_t i, std::span<const float> logits) {
    if (i + 1 == std::ssize(ids)) return;
    const float target = logits[static_cast<size_t>(ids[static_cast<size_t>(i) + 1])];
    double sum = 0, weighted = 0, all = 0;
    for (const float l : logits)
      sum += std::exp(double{l}), weighted += std::exp(double{l}) * l, all += l;
    nll += std::log(sum) - target;
    entropy += std::log(sum) - weighted / sum;
    relative += target - all / static_cast<double>(logits.size());
    ranks.push_back(
        static_cast<double>(std::ranges::count_if(logits, [&](float l) { return l > target; })));
  });
  const auto n = static_cast<double>(ids.size() - 1);
  const LensFigures& last = study.layers.back().lens;
  EXPECT_NEAR(last.target_nll, nll / n, 1e-6);
  EXPECT_NEAR(last.entropy, entropy / n, 1e-6);
  EXPECT_EQ(last.kl_to_final, 0);
  EXPECT_NEAR(last.top1, 1, 1e-12);
  EXPECT_EQ(last.target_rank, median(ranks));
  EXPECT_GT(study.layers.front().lens.kl_to_final, 0.01);
  // What the parts add is what there is; a softcap comes after that.
  double parts = study.embedding_logit;
  for (const LayerFigures& f : study.layers) parts += f.attention_logit + f.mlp_logit;
  EXPECT_NEAR(parts, study.target_logit, 1e-4 * std::max(1.0, std::abs(parts)));
  if (engine->config().final_logit_softcapping == 0) {
    EXPECT_NEAR(study.target_logit, relative / n, 2e-6);
  }
}

TEST_P(Layers, TheLensInTheMiddleIsTheReferencesStreamThroughItsHead) {
  const int first = 0;
  const auto stream = rows(first, "hook_resid_post");
  const LayerStudy study = study_layers(engine, ids, {.lens_sample = 1000});
  double nll = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    double squares = 0;
    for (const double x : stream[i]) squares += x * x;
    const double rms =
        std::sqrt(squares / static_cast<double>(stream[i].size()) + engine->config().rms_norm_eps);
    const double cap = engine->config().final_logit_softcapping;
    std::vector<double> logits;
    for (Token id = 0; id < engine->config().vocab_size; ++id) {
      const std::vector<float> to = engine->logit_direction(id);
      const double logit =
          std::inner_product(stream[i].begin(), stream[i].end(), to.begin(), 0.0) / rms;
      logits.push_back(cap > 0 ? cap * std::tanh(logit / cap) : logit);
    }
    double sum = 0;
    for (const double l : logits) sum += std::exp(l);
    nll += std::log(sum) - logits[static_cast<size_t>(ids[i + 1])];
  }
  EXPECT_NEAR(study.layers[first].lens.target_nll, nll / static_cast<double>(ids.size() - 1), 1e-4);
}

TEST(LayerStudy, RankCountsTheDirectionsThatAreThere) {
  // A text of two tokens has one direction once its mean is taken off.
  const auto engine = Engine::load(kGolden / "gemma3-v5", {.compute = Compute::kExact});
  const LayerStudy study = study_layers(engine, std::vector<Token>{2, 10});
  EXPECT_NEAR(study.layers[0].effective_rank, 1, 1e-3);
  EXPECT_THROW(study_layers(engine, std::vector<Token>{2}), Error);
  EXPECT_THROW(study_layers(engine, std::vector<Token>{2, 3}, {.sample = 1}), Error);
}

}  // namespace
}  // namespace lapidary
