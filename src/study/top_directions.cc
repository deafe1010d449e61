#include "study/top_directions.h"

#include <algorithm>

#include "base/aligned_vector.h"
#include "base/rng.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

using Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kBlock = 16;
constexpr int64_t kDimensions = 256;
constexpr uint64_t kSeed = 0x6b72796c6f76;

MatrixXd product(Strided a, const MatrixXd& b) {
  const RowMajor right = b.cast<float>();
  RowMajor result(a.rows, b.cols());
  AlignedVector<float> scratch(static_cast<size_t>(gemm_scratch_floats(best_kernels())));
  gemm(best_kernels(), a, Strided(right.data(), right.rows(), right.cols(), right.cols()),
       {result.data(), result.cols()}, Into::kOverwrite, scratch.data());
  return result.cast<double>();
}

MatrixXd drawn(int64_t rows) {
  const CounterRng rng(kSeed);
  MatrixXd start(rows, kBlock);
  for (int64_t i = 0; i < start.size(); ++i)
    start.data()[i] = double{rng.normal(static_cast<uint64_t>(i))};
  return start;
}

// Orthonormal columns, added one by one; those that depend on the ones before are left out.
class Basis {
 public:
  Basis(int64_t rows, int64_t most) : columns_(rows, most) {}

  // Returns what was added.
  MatrixXd add(const MatrixXd& block) {
    const int64_t before = count_;
    for (int64_t i = 0; i < block.cols() && count_ < columns_.cols(); ++i) {
      Eigen::VectorXd column = block.col(i);
      const double length = column.norm();
      for (int round = 0; round < 2; ++round)
        column -= columns() * (columns().transpose() * column).eval();
      if (column.norm() > 1e-10 * length) columns_.col(count_++) = column.normalized();
    }
    return columns_.middleCols(before, count_ - before);
  }
  Eigen::Ref<const MatrixXd> columns() const { return columns_.leftCols(count_); }
  bool full() const { return count_ == columns_.cols(); }

 private:
  MatrixXd columns_;
  int64_t count_ = 0;
};

}  // namespace

SingularParts top_directions(Matrix m, int64_t count) {
  const bool turned = m.rows < m.cols;
  const Strided tall = turned ? Strided(m).transposed() : Strided(m), wide = tall.transposed();
  Basis basis(tall.cols, std::min(tall.cols, kDimensions));
  MatrixXd block = basis.add(drawn(tall.cols));
  while (!basis.full() && block.cols() > 0) block = basis.add(product(wide, product(tall, block)));
  const MatrixXd image = product(tall, basis.columns());
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(image.transpose() * image);
  count = std::min<int64_t>(count, image.cols());
  const MatrixXd mix = solver.eigenvectors().rightCols(count).rowwise().reverse();
  SingularParts parts{{}, solver.eigenvalues().tail(count).reverse().cwiseMax(0).cwiseSqrt(), {}};
  MatrixXd left = image * mix;
  for (int64_t i = 0; i < count; ++i)
    if (parts.values[i] > 0) left.col(i) /= parts.values[i];
  const MatrixXd right = basis.columns() * mix;
  parts.u = turned ? right : left;
  parts.v = turned ? left : right;
  return parts;
}

}  // namespace lapidary
