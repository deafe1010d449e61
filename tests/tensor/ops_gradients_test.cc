// Each operation on rows of activations: its way back against its definition
// (central_differences.h).
#include <cmath>
#include <numbers>

#include "tensor/central_differences.h"

namespace lapidary {
namespace {

struct OpsGradients : ::testing::Test {
  Executor ex{best_kernels(), 2};
  Tape tape;
  Leaves leaves{tape};

  void check(const std::vector<Matrix>& inputs, const std::function<std::vector<Matrix>()>& run,
             const Definition& definition, double roundings) {
    expect_gradients(ex, tape, inputs, run, definition, roundings);
  }
};

Doubles rms_norm(const Doubles& x, const Doubles& weight, double eps) {
  Doubles y;
  const size_t n = weight.size();
  for (size_t row = 0; row < x.size(); row += n) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[row + i] * x[row + i];
    const double r = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
    for (size_t i = 0; i < n; ++i) y.push_back(x[row + i] * r * weight[i]);
  }
  return y;
}

// eps of the size of the mean square: it has its part in the derivative.
TEST_F(OpsGradients, RmsNorm) {
  constexpr double kEps = 0.25;
  for (const bool in_place : {false, true}) {
    SCOPED_TRACE(in_place ? "in place" : "into another matrix");
    const Matrix x = leaves.add(5, 24), weight = leaves.add(1, 24);
    const Matrix y = in_place ? x : leaves.add(5, 24);
    check(
        {x, weight},
        [&] {
          lapidary::rms_norm(ex, x, {weight.data, 24}, kEps, y);
          return std::vector{y};
        },
        [&](const auto& in) { return rms_norm(in[0], in[1], kEps); }, 40);
  }
}

// x is added to what it had before: a residual stream.
TEST_F(OpsGradients, AddAndNormOfWhatWasOverwritten) {
  const Matrix x = leaves.add(3, 16), h = leaves.add(3, 16), weight = leaves.add(1, 16);
  check(
      {x, h, weight},
      [&] {
        add(ex, x, h);
        lapidary::rms_norm(ex, x, {weight.data, 16}, 1e-6, h);
        add(ex, x, h);
        return std::vector{x};
      },
      [](const auto& in) {
        Doubles sum = in[0];
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += in[1][i];
        const Doubles norm = rms_norm(sum, in[2], 1e-6);
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += norm[i];
        return sum;
      },
      40);
}

// Its kernel has a test of its own over the whole range; this is the operation.
TEST_F(OpsGradients, GeluGate) {
  const Matrix gate = leaves.add(7, 131, 3), up = leaves.add(7, 131);
  check(
      {gate, up},
      [&] {
        gelu_mul(ex, gate, up);
        return std::vector{gate};
      },
      [](const auto& in) {
        Doubles y = in[0];
        for (size_t i = 0; i < y.size(); ++i) {
          const double x = y[i], cubic = x + 0.044715 * x * x * x;
          y[i] = 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * cubic)) * in[1][i];
        }
        return y;
      },
      40);
}

TEST_F(OpsGradients, Rotary) {
  constexpr int kDim = 8, kHeads = 3;
  const std::vector<int64_t> positions = {0, 1, 2, 0, 1};  // two documents
  lapidary::Rotary rotary(kDim, 100, 2);
  rotary.set_positions(ex, positions);
  const Matrix x = leaves.add(5, kHeads * kDim);
  check(
      {x},
      [&] {
        rotary.apply(ex, x);
        return std::vector{x};
      },
      [&](const auto& in) {
        Doubles y = in[0];
        for (size_t t = 0; t < positions.size(); ++t)
          for (size_t head = 0; head < kHeads; ++head)
            for (size_t i = 0; i < kDim / 2; ++i) {
              const double angle = static_cast<double>(positions[t]) *
                                   std::pow(100, -2.0 * static_cast<double>(i) / kDim) / 2;
              double& low = y[(t * kHeads + head) * kDim + i];
              double& high = y[(t * kHeads + head) * kDim + i + kDim / 2];
              const double a = low, b = high;
              low = a * std::cos(angle) - b * std::sin(angle);
              high = b * std::cos(angle) + a * std::sin(angle);
            }
        return y;
      },
      20);
}

TEST_F(OpsGradients, EmbedOfTokensThatComeTwice) {
  const Matrix table = leaves.add(6, 10), y = leaves.add(5, 10, 0);
  const std::vector<Token> ids = {4, 1, 4, 0, 4};
  check(
      {table},
      [&] {
        embed(ex, ids, {.rows = 6, .cols = 10, .data = reinterpret_cast<std::byte*>(table.data)},
              2.5f, y);
        return std::vector{y};
      },
      [&](const auto& in) {
        Doubles out;
        for (const Token id : ids)
          for (size_t i = 0; i < 10; ++i)
            out.push_back(2.5 * in[0][static_cast<size_t>(id) * 10 + i]);
        return out;
      },
      4);
}

// y = x wᵀ and what two adapters add, which see x with a part of it dropped out.
struct AdaptedMatrix {
  Matrix w, a[2], b[2], y;
  Linear linear;
  static constexpr float kScales[] = {1.5f, -0.75f};

  AdaptedMatrix(Leaves& leaves, int64_t tokens, int64_t rows, int64_t cols)
      : w(leaves.add(rows, cols)), y(leaves.add(tokens, rows, 0)) {
    linear = WeightMatrix{
        .rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(w.data)};
    for (int i : {0, 1}) {
      const int64_t rank = i + 2;
      a[i] = leaves.add(rank, cols);
      b[i] = leaves.add(rows, rank);
      linear.low_rank.push_back(
          {.a = a[i].data, .b = b[i].data, .rank = rank, .scale = kScales[i]});
    }
  }
};

// [rows, n] from x [rows, k] and w [n, k]
Doubles product(const Doubles& x, const Doubles& w, size_t k) {
  Doubles y;
  for (size_t t = 0; t < x.size(); t += k)
    for (size_t n = 0; n < w.size(); n += k) {
      double sum = 0;
      for (size_t i = 0; i < k; ++i) sum += x[t + i] * w[n + i];
      y.push_back(sum);
    }
  return y;
}

TEST_F(OpsGradients, MatmulWithAdaptersAndDropout) {
  constexpr int64_t kTokens = 6, kCols = 20;
  for (const double rate : {0.0, 0.4}) {
    SCOPED_TRACE(rate);
    tape.set_dropout(rate, 11);
    // The masks that the products will draw, in the order they ask.
    Tape same;
    same.set_dropout(rate, 11);
    std::vector<Doubles> masks;
    for (int i = 0; i < 4; ++i) {
      AlignedVector<float> ones(kTokens * kCols, 1.0f);
      if (const Dropout drawn = same.next_dropout(); rate > 0)
        drawn.apply({ones.data(), kTokens, kCols});
      masks.emplace_back(ones.begin(), ones.end());
    }
    const Matrix x = leaves.add(kTokens, kCols);
    AdaptedMatrix first(leaves, kTokens, 9, kCols), second(leaves, kTokens, 17, kCols);
    std::vector<Matrix> inputs = {x};
    for (const AdaptedMatrix* m : {&first, &second})
      inputs.insert(inputs.end(), {m->w, m->a[0], m->b[0], m->a[1], m->b[1]});
    check(
        inputs,
        [&] {
          matmul(ex, x, {{first.linear, first.y}, {second.linear, second.y}});
          std::fill_n(x.data, x.size(), 0.0f);  // as later operations overwrite it
          return std::vector{first.y, second.y};
        },
        [&](const auto& in) {
          Doubles results;
          for (size_t m : {0, 1}) {
            const Doubles* part = &in[1 + 5 * m];
            Doubles y = product(in[0], part[0], kCols);
            for (size_t i : {0, 1}) {
              Doubles seen = in[0];
              for (size_t j = 0; j < seen.size(); ++j) seen[j] *= masks[2 * m + i][j];
              const Doubles added =
                  product(product(seen, part[1 + 2 * i], kCols), part[2 + 2 * i], i + 2);
              for (size_t j = 0; j < y.size(); ++j)
                y[j] += double{AdaptedMatrix::kScales[i]} * added[j];
            }
            results.insert(results.end(), y.begin(), y.end());
          }
          return results;
        },
        2 * kCols);
  }
}

}  // namespace
}  // namespace lapidary
