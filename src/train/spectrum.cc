#include "train/spectrum.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace lapidary {

namespace {

using Eigen::MatrixXd;

constexpr int64_t kBlock = 256;  // rows that are converted to double at once

// m with the longer side down.
class Tall {
 public:
  explicit Tall(Matrix m) : turned_(m.rows < m.cols), view_(turned_ ? turned(m) : as_it_lies(m)) {}

  bool turned() const { return turned_; }
  int64_t width() const { return view_.cols(); }

  // fn(first row, rows in double)
  template <class Fn>
  void for_blocks(Fn&& fn) const {
    for (int64_t row = 0; row < view_.rows(); row += kBlock) {
      const MatrixXd block =
          view_.middleRows(row, std::min(kBlock, view_.rows() - row)).cast<double>();
      fn(row, block);
    }
  }

  MatrixXd gram() const {
    MatrixXd sum = MatrixXd::Zero(width(), width());
    for_blocks([&](int64_t, const MatrixXd& block) {
      sum.selfadjointView<Eigen::Lower>().rankUpdate(block.transpose());
    });
    return sum;
  }

  MatrixXd times(const MatrixXd& right) const {
    MatrixXd product(view_.rows(), right.cols());
    for_blocks([&](int64_t row, const MatrixXd& block) {
      product.middleRows(row, block.rows()).noalias() = block * right;
    });
    return product;
  }

 private:
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  using View = Eigen::Map<const Eigen::MatrixXf, Eigen::Unaligned, Stride>;
  static View as_it_lies(Matrix m) { return {m.data, m.rows, m.cols, Stride(1, m.cols)}; }
  static View turned(Matrix m) { return {m.data, m.cols, m.rows, Stride(m.cols, 1)}; }

  bool turned_;
  View view_;
};

double root(double eigenvalue) {
  return std::sqrt(std::max(eigenvalue, 0.0));
}

}  // namespace

std::vector<double> singular_values(Matrix m) {
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(Tall(m).gram(), Eigen::EigenvaluesOnly);
  std::vector<double> values;
  for (int64_t i = solver.eigenvalues().size(); i-- > 0;)
    values.push_back(root(solver.eigenvalues()[i]));
  return values;
}

SingularParts largest_parts(Matrix m, int64_t count) {
  const Tall tall(m);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(tall.gram());
  count = std::min(count, tall.width());
  SingularParts parts{{}, solver.eigenvalues().tail(count).reverse().unaryExpr(&root), {}};
  const MatrixXd narrow = solver.eigenvectors().rightCols(count).rowwise().reverse();
  MatrixXd wide = tall.times(narrow);
  for (int64_t i = 0; i < count; ++i)
    if (parts.values[i] > 0) wide.col(i) /= parts.values[i];
  parts.u = tall.turned() ? narrow : wide;
  parts.v = tall.turned() ? wide : narrow;
  return parts;
}

double effective_rank(std::span<const double> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (sum == 0) return 0;
  double entropy = 0;
  for (const double value : values)
    if (value > 0) entropy -= value / sum * std::log(value / sum);
  return std::exp(entropy);
}

double stable_rank(std::span<const double> values) {
  if (values.empty() || values.front() == 0) return 0;
  double sum = 0;
  for (const double value : values) sum += value / values.front() * (value / values.front());
  return sum;
}

int64_t numerical_rank(std::span<const double> values, double threshold) {
  return std::ranges::count_if(values, [&](double value) { return value > threshold; });
}

std::optional<double> mean_angle(const MatrixXd& x, const MatrixXd& y) {
  if (x.cols() == 0 || y.cols() == 0) return std::nullopt;  // Eigen has no QR of it
  const std::vector<double> cosines = principal_cosines(x, y);
  if (cosines.empty()) return std::nullopt;
  double mean = 0;
  for (const double c : cosines) mean += c * c / static_cast<double>(cosines.size());
  return std::acos(std::min(1.0, std::sqrt(mean))) * 180 / std::numbers::pi;
}

}  // namespace lapidary
