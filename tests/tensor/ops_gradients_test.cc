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

// What a product took is made again of what the operation before it keeps, and only of that one.
TEST_F(OpsGradients, ResultsMadeAgain) {
  const Matrix x = leaves.add(3, 16), h = leaves.add(3, 16), weight = leaves.add(1, 16);
  ex.tape = &tape;
  const auto made_again = [&](Matrix values) {
    const std::vector<float> before(values.data, values.data + values.size());
    const int64_t bytes = tape.peak_bytes();
    const auto kept = tape.keep_or_remake(ex, values);
    const bool copied = tape.peak_bytes() > bytes;
    std::fill_n(values.data, values.size(), NAN);
    const Matrix again = kept();
    EXPECT_EQ(std::vector<float>(again.data, again.data + again.size()), before);
    std::copy(before.begin(), before.end(), values.data);
    return !copied;
  };
  EXPECT_FALSE(made_again(x));
  lapidary::rms_norm(ex, x, {weight.data, 16}, 1e-6, h);
  EXPECT_FALSE(made_again(x));
  EXPECT_TRUE(made_again(h));
  EXPECT_FALSE(made_again({h.data, 1, 16}));
  add(ex, h, x);
  EXPECT_FALSE(made_again(h));
  gelu_mul(ex, x, h);
  EXPECT_FALSE(made_again(h));
  EXPECT_TRUE(made_again(x));
  ex.tape = nullptr;
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

// y = x wᵀ and what two adapters add, which see x with a part of it dropped out; the second may be
// of DoRA.
struct AdaptedMatrix {
  Matrix w, a[2], b[2], y;
  Matrix magnitude = {};
  std::vector<float> inverse_norm;
  Linear linear;
  static constexpr float kScales[] = {1.5f, -0.75f};
  static constexpr float kStrength = 0.6f;

  AdaptedMatrix(Leaves& leaves, int64_t tokens, int64_t rows, int64_t cols, bool dora)
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
    if (!dora) return;
    magnitude = leaves.add(1, rows, 2);
    for (int64_t i = 0; i < rows; ++i)
      inverse_norm.push_back(0.5f + 0.1f * static_cast<float>(i % 7));
    linear.low_rank[1].strength = kStrength;
    linear.low_rank[1].magnitude = magnitude.data;
    linear.low_rank[1].inverse_norm = inverse_norm.data();
  }

  std::vector<Matrix> inputs() const {
    std::vector<Matrix> all = {w, a[0], b[0], a[1], b[1]};
    if (magnitude.data != nullptr) all.push_back(magnitude);
    return all;
  }
  // Of x, the inputs, and the masks of what the adapters see.
  Doubles definition(const Doubles& x, const Doubles* in, const Doubles* masks) const;
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

Doubles AdaptedMatrix::definition(const Doubles& x, const Doubles* in, const Doubles* masks) const {
  const auto cols = static_cast<size_t>(w.cols), rows = static_cast<size_t>(w.rows);
  const Doubles base = product(x, in[0], cols);
  Doubles result = base;
  for (size_t i : {0, 1}) {
    Doubles seen = x;
    for (size_t j = 0; j < seen.size(); ++j) seen[j] *= masks[i][j];
    const Doubles added = product(product(seen, in[1 + 2 * i], cols), in[2 + 2 * i], i + 2);
    for (size_t j = 0; j < result.size(); ++j) {
      const double change = double{kScales[i]} * added[j];
      if (i == 0 || inverse_norm.empty()) {
        result[j] += change;
      } else {
        const double gain = in[5][j % rows] * double{inverse_norm[j % rows]};
        result[j] += double{kStrength} * (gain * (base[j] + change) - base[j]);
      }
    }
  }
  return result;
}

class MatmulGradients : public OpsGradients {
 protected:
  void check_matmul(double rate, bool dora) {
    constexpr int64_t kTokens = 6, kCols = 20;
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
    const AdaptedMatrix first(leaves, kTokens, 9, kCols, dora);
    const AdaptedMatrix second(leaves, kTokens, 17, kCols, false);
    std::vector<Matrix> inputs = {x};
    for (const AdaptedMatrix* m : {&first, &second})
      for (const Matrix& input : m->inputs()) inputs.push_back(input);
    check(
        inputs,
        [&] {
          matmul(ex, x, {{first.linear, first.y}, {second.linear, second.y}});
          std::fill_n(x.data, x.size(), 0.0f);  // as later operations overwrite it
          return std::vector{first.y, second.y};
        },
        [&](const auto& in) {
          Doubles results = first.definition(in[0], &in[1], &masks[0]);
          const Doubles more = second.definition(in[0], &in[1 + first.inputs().size()], &masks[2]);
          results.insert(results.end(), more.begin(), more.end());
          return results;
        },
        2 * kCols);
    if (rate > 0) return;
    // What runs without a tape is the same.
    const Matrix again = leaves.add(kTokens, kCols), y = leaves.add(kTokens, 9, 0);
    matmul(ex, again, first.linear, y);
    std::vector<Doubles> values = {doubles_of(again)};
    for (const Matrix& input : first.inputs()) values.push_back(doubles_of(input));
    const Doubles want = first.definition(values[0], &values[1], &masks[0]);
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(y.data[i], want[i], std::ldexp(2.0 * kCols, -24) * 20);
  }
};

TEST_F(MatmulGradients, WithAdapters) {
  check_matmul(0, false);
}
TEST_F(MatmulGradients, WithAdaptersAndDropout) {
  check_matmul(0.4, false);
}
TEST_F(MatmulGradients, WithDora) {
  check_matmul(0, true);
}
TEST_F(MatmulGradients, WithDoraAndDropout) {
  check_matmul(0.4, true);
}

}  // namespace
}  // namespace lapidary
