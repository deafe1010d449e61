// Sums over activations as they pass, and samples of them: the figures of layer_study.h.
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "lapidary/layer_study.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "kernels/kernels.h"
#include "train/spectrum.h"

namespace lapidary {

namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// `count` of the positions [0, length), or all, evenly spread; the last is one of them.
std::vector<int64_t> spread(int64_t length, int64_t count) {
  std::vector<int64_t> positions;
  count = std::min(length, count);
  for (int64_t i = 1; i <= count; ++i) positions.push_back(i * length / count - 1);
  return positions;
}

// Rows of one point at some positions.
struct Sample {
  Rows rows;
  void take(const Activation& a, std::span<const int64_t> positions) {
    rows.resize(std::ssize(positions), a.cols);
    for (auto p = std::ranges::lower_bound(positions, a.position);
         p != positions.end() && *p < a.position + a.rows; ++p)
      rows.row(p - positions.begin()) =
          Eigen::Map<const Eigen::RowVectorXf>(a.row(*p - a.position), a.cols);
  }
};

double length_of(const float* row, int64_t n) {
  return std::sqrt(double{Eigen::Map<const Eigen::VectorXf>(row, n).squaredNorm()});
}

// Of a layer, as its chunks come.
struct LayerSums {
  double norm = 0, attention_norm = 0, mlp_norm = 0, kurtosis = 0, gate_open = 0, neurons = 0;
  Eigen::ArrayXd squares;  // by feature
};

class Study {
 public:
  Study(const Engine& engine, int64_t tokens, const LayerOptions& options)
      : config_(engine.config()),
        tokens_(static_cast<double>(tokens)),
        positions_(spread(tokens, options.sample)),
        lens_positions_(spread(tokens - 1, options.lens_sample)),
        sums_(static_cast<size_t>(config_.num_hidden_layers)),
        streams_(sums_.size() + 1),
        lens_(sums_.size()),
        attention_(sums_.size()),
        mlp_(sums_.size()) {}

  Tap tap() {
    return [this](const Activation& a) {
      const Stopwatch clock;
      see(a);
      look_seconds_ += clock.seconds();
    };
  }

  void fill(LayerStudy& result) const;
  // At lens_positions_, after which the targets come.
  std::vector<Token> targets(std::span<const Token> tokens) const {
    std::vector<Token> list;
    for (const int64_t p : lens_positions_) list.push_back(tokens[static_cast<size_t>(p) + 1]);
    return list;
  }
  void see_through_lens(const Engine& engine, std::span<const Token> targets, const Watch& watch,
                        LayerStudy& result) const;
  void add_up_logits(const Engine& engine, std::span<const Token> targets,
                     LayerStudy& result) const;

 private:
  void see(const Activation& a);
  void see_stream(const Activation& a, LayerSums& sums);
  double norms(const Activation& a) const {
    double sum = 0;
    for (int64_t i = 0; i < a.rows; ++i) sum += length_of(a.row(i), a.cols);
    return sum;
  }

  const Config& config_;
  double tokens_;
  std::vector<int64_t> positions_, lens_positions_;
  std::vector<LayerSums> sums_;
  double embedding_norm_ = 0;
  std::vector<Sample> streams_;  // before the first layer and after each, at positions_
  Sample embedding_;             // at lens_positions_, as are these
  std::vector<Sample> lens_, attention_, mlp_;
  double look_seconds_ = 0;
};

void Study::see_stream(const Activation& a, LayerSums& sums) {
  if (sums.squares.size() == 0) sums.squares = Eigen::ArrayXd::Zero(a.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    const Eigen::ArrayXd x = Eigen::Map<const Eigen::ArrayXf>(a.row(i), a.cols).cast<double>();
    const Eigen::ArrayXd squares = (x - x.mean()).square();
    sums.norm += std::sqrt(x.square().sum());
    sums.squares += x.square();
    const double variance = squares.mean();
    if (variance > 0) sums.kurtosis += squares.square().mean() / (variance * variance);
  }
}

void Study::see(const Activation& a) {
  if (a.layer < 0) {
    if (a.point != "hook_embed") return;
    embedding_norm_ += norms(a);
    streams_[0].take(a, positions_);
    embedding_.take(a, lens_positions_);
    return;
  }
  const auto layer = static_cast<size_t>(a.layer);
  LayerSums& sums = sums_[layer];
  if (a.point == "hook_attn_out") {
    sums.attention_norm += norms(a);
    attention_[layer].take(a, lens_positions_);
  } else if (a.point == "hook_mlp_out") {
    sums.mlp_norm += norms(a);
    mlp_[layer].take(a, lens_positions_);
  } else if (a.point == "mlp.hook_pre") {
    const Eigen::Map<const Eigen::ArrayXf> gates(a.values, a.rows * a.cols);
    sums.gate_open += static_cast<double>((gates > 0).count()) / static_cast<double>(a.cols);
  } else if (a.point == "mlp.hook_post") {
    for (int64_t i = 0; i < a.rows; ++i) {
      const Eigen::Map<const Eigen::ArrayXf> neurons(a.row(i), a.cols);
      const double sum = neurons.abs().sum(), squares = neurons.square().sum();
      if (squares > 0) sums.neurons += sum * sum / (static_cast<double>(a.cols) * squares);
    }
  } else if (a.point == "hook_resid_post") {
    see_stream(a, sums);
    streams_[layer + 1].take(a, positions_);
    lens_[layer].take(a, lens_positions_);
  }
}

// Products of the rows with each other after their mean is taken off, [n, n].
Eigen::MatrixXf centred_gram(const Rows& rows) {
  const Rows centred = rows.rowwise() - rows.colwise().mean();
  return centred * centred.transpose();
}

double rank_of_gram(const Eigen::MatrixXf& gram) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXf> solver(gram, Eigen::EigenvaluesOnly);
  const Eigen::ArrayXd variances = solver.eigenvalues().cast<double>().array().max(0);
  // Of rows that are all the same too it is 1.
  return std::max(1.0, effective_rank({variances.data(), static_cast<size_t>(variances.size())}));
}

void Study::fill(LayerStudy& result) const {
  result.sampled = std::ssize(positions_);
  result.lens_sampled = std::ssize(lens_positions_);
  result.embedding_norm = embedding_norm_ / tokens_;
  result.look_seconds = look_seconds_;
  std::vector<Eigen::MatrixXf> grams;
  for (const Sample& stream : streams_) grams.push_back(centred_gram(stream.rows));
  for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const auto index = static_cast<size_t>(layer);
    const LayerSums& s = sums_[index];
    LayerFigures f{.layer = layer, .sliding = config_.is_sliding(layer)};
    f.norm = s.norm / tokens_;
    f.attention_norm = s.attention_norm / tokens_;
    f.mlp_norm = s.mlp_norm / tokens_;
    f.kurtosis = s.kurtosis / tokens_;
    f.gate_open = s.gate_open / tokens_;
    f.neurons = s.neurons / tokens_;
    const double middle = median({s.squares.data(), static_cast<size_t>(s.squares.size())});
    for (const double square : s.squares) f.features.push_back(std::sqrt(square / middle));
    const auto largest = std::ranges::max_element(f.features);
    f.outlier = static_cast<int>(largest - f.features.begin());
    f.outlier_ratio = *largest;
    f.effective_rank = rank_of_gram(grams[index + 1]);
    result.layers.push_back(f);
  }
  for (const Eigen::MatrixXf& a : grams) {
    result.similarity.emplace_back();
    for (const Eigen::MatrixXf& b : grams)
      result.similarity.back().push_back(double{a.cwiseProduct(b).sum()} /
                                         (double{a.norm()} * double{b.norm()}));
  }
}

using LogitSlice = Eigen::Map<const Eigen::ArrayXf>;
// Logits of a slice, with what is computed of them, stay in a core's first cache. Sums over a slice
// are in f32, those over slices in double.
constexpr Eigen::Index kLensSlice = 1024;

// fn(first, slice) for the slices of a row of logits, in order.
template <class Fn>
void for_each_slice(std::span<const float> row, Fn&& fn) {
  for (Eigen::Index i = 0; i < std::ssize(row); i += kLensSlice)
    fn(i, LogitSlice(row.data() + i, std::min(kLensSlice, std::ssize(row) - i)));
}

// A row's softmax of those of its slices: ln of the whole sum, and each slice's share of it.
struct Whole {
  double log_sum;
  Eigen::ArrayXd shares;

  explicit Whole(const std::vector<double>& log_sums) {
    const Eigen::Map<const Eigen::ArrayXd> parts(log_sums.data(), std::ssize(log_sums));
    const double highest = parts.maxCoeff();
    log_sum = highest + std::log((parts - highest).exp().sum());
    shares = (parts - log_sum).exp();
  }
};

// What the model itself predicts at a position.
struct Prediction {
  Eigen::ArrayXf p;
  double negative_entropy = 0;  // sum of p ln p
  Eigen::Index top = 0;         // the likeliest token

  // Uses the memory that it has.
  void read(std::span<const float> row) {
    const LogitSlice logits(row.data(), std::ssize(row));
    logits.maxCoeff(&top);
    p = logits;
    std::vector<double> log_sums;
    for_each_slice(row, [&](Eigen::Index i, const LogitSlice& slice) {
      log_sums.push_back(best_kernels().softmax(p.data() + i, slice.size()));
    });
    const Whole whole(log_sums);
    double mean = 0;
    for_each_slice(row, [&](Eigen::Index i, const LogitSlice& slice) {
      auto part = p.segment(i, slice.size());
      part *= static_cast<float>(whole.shares[i / kLensSlice]);
      mean += double{(part * slice).sum()};
    });
    negative_entropy = mean - whole.log_sum;
  }
};

// Of one position.
struct LensRow {
  double entropy, kl, nll, rank, same;
};

// Of a row of logits that a layer's stream gives, megabytes that are read once.
LensRow compare(const Prediction& final, std::span<const float> row, Token target) {
  const float target_logit = row[static_cast<size_t>(target)];
  const float final_choice = row[static_cast<size_t>(final.top)];
  Eigen::Array<float, kLensSlice, 1> p;
  std::vector<double> log_sums, means;  // by slice, of its softmax: ln of the sum, mean logit
  double final_mean = 0;                // sum of the model's own p times the logits
  double likelier = 0;                  // tokens, than the target
  bool same = true;
  for_each_slice(row, [&](Eigen::Index i, const LogitSlice& logits) {
    const Eigen::Index n = logits.size();
    p.head(n) = logits;
    log_sums.push_back(best_kernels().softmax(p.data(), n));
    means.push_back(double{(p.head(n) * logits).sum()});
    final_mean += double{(final.p.segment(i, n) * logits).sum()};
    likelier += static_cast<double>(
        std::count_if(logits.data(), logits.data() + n, [&](float x) { return x > target_logit; }));
    same = same && logits.maxCoeff() <= final_choice;
  });
  const Whole whole(log_sums);
  const Eigen::Map<const Eigen::ArrayXd> by_slice(means.data(), std::ssize(means));
  return {.entropy = whole.log_sum - (whole.shares * by_slice).sum(),
          .kl = std::max(0.0, final.negative_entropy - (final_mean - whole.log_sum)),
          .nll = whole.log_sum - double{target_logit},
          .rank = likelier,
          .same = same ? 1.0 : 0.0};
}

LensFigures means(std::span<const LensRow> rows) {
  LensFigures f;
  std::vector<double> ranks;
  const double share = 1 / static_cast<double>(rows.size());
  for (const LensRow& row : rows) {
    if (!std::isfinite(row.nll)) fail("the logits of a layer's stream are not finite");
    f.entropy += share * row.entropy;
    f.kl_to_final += share * row.kl;
    f.target_nll += share * row.nll;
    f.top1 += share * row.same;
    ranks.push_back(row.rank);
  }
  f.target_rank = median(ranks);
  return f;
}

// A group of positions at a time, whose final predictions are kept.
void Study::see_through_lens(const Engine& engine, std::span<const Token> targets,
                             const Watch& watch, LayerStudy& result) const {
  constexpr size_t kGroup = 64;
  std::vector<std::vector<LensRow>> rows(lens_.size(), std::vector<LensRow>(targets.size()));
  std::vector<Prediction> final(std::min(targets.size(), kGroup));
  for (size_t done = 0; done < targets.size(); done += kGroup) {
    const auto group = targets.subspan(done, std::min(kGroup, targets.size() - done));
    const auto read = [&](const Sample& sample, const auto& fn) {
      const auto part = sample.rows.middleRows(static_cast<Eigen::Index>(done), std::ssize(group));
      engine.read_stream(
          {part.data(), static_cast<size_t>(part.size())},
          [&](int64_t i, std::span<const float> logits) { fn(static_cast<size_t>(i), logits); });
    };
    read(lens_.back(), [&](size_t i, std::span<const float> logits) { final[i].read(logits); });
    for (size_t layer = 0; layer < lens_.size(); ++layer) {
      watch.throw_if_stopped();
      read(lens_[layer], [&](size_t i, std::span<const float> logits) {
        rows[layer][done + i] = compare(final[i], logits, group[i]);
      });
    }
  }
  for (size_t layer = 0; layer < lens_.size(); ++layer)
    result.layers[layer].lens = means(rows[layer]);
}

void Study::add_up_logits(const Engine& engine, std::span<const Token> targets,
                          LayerStudy& result) const {
  const std::vector<float> mean = engine.mean_logit_direction();
  const Eigen::Map<const Eigen::RowVectorXf> average(mean.data(), std::ssize(mean));
  const double share = 1 / static_cast<double>(targets.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto row = static_cast<Eigen::Index>(i);
    const std::vector<float> to = engine.logit_direction(targets[i]);
    const auto stream = lens_.back().rows.row(row);
    const double rms = std::sqrt(double{stream.squaredNorm()} / static_cast<double>(stream.size()) +
                                 config_.rms_norm_eps);
    const Eigen::RowVectorXf direction =
        Eigen::Map<const Eigen::RowVectorXf>(to.data(), std::ssize(to)) - average;
    const auto part = [&](const auto& vector) {
      return share * double{direction.dot(vector)} / rms;
    };
    result.target_logit += part(stream);
    result.embedding_logit += part(embedding_.rows.row(row));
    for (size_t layer = 0; layer < lens_.size(); ++layer) {
      result.layers[layer].attention_logit += part(attention_[layer].rows.row(row));
      result.layers[layer].mlp_logit += part(mlp_[layer].rows.row(row));
    }
  }
}

}  // namespace

LayerStudy study_layers(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                        const LayerOptions& options, const Watch& watch) {
  if (tokens.size() < 2)
    fail("{} token{} given; layers need at least two, one to predict from another", tokens.size(),
         tokens.size() == 1 ? "" : "s");
  if (options.sample < 2 || options.lens_sample < 1)
    fail_usage("samples of {} and {} positions, expected at least 2 and 1", options.sample,
               options.lens_sample);
  LayerStudy result{.tokens = std::ssize(tokens)};
  Study study(*engine, result.tokens, options);
  {
    Session session(engine, options.context);
    session.set_tap(study.tap());
    const Stopwatch clock;
    session.append(tokens, watch);
    result.seconds = clock.seconds();
  }
  const Stopwatch clock;
  study.fill(result);
  result.look_seconds += clock.seconds();
  result.seconds += clock.seconds();
  const Stopwatch lens_clock;
  const std::vector<Token> targets = study.targets(tokens);
  study.see_through_lens(*engine, targets, watch, result);
  study.add_up_logits(*engine, targets, result);
  result.lens_seconds = lens_clock.seconds();
  return result;
}

}  // namespace lapidary
