// The operations of the model on rows of activations: check shapes, share the work out to threads,
// call the kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/token.h"

#include "base/aligned_vector.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "tensor/matrix.h"
#include "tensor/tape.h"

namespace lapidary {

// Whether products with quantised weights may round their activations to 8 bits (numerics.md).
enum class Activations { kFloat, kRounded };

// What products of gemm.h multiply (numerics.md): f32, or operands that are rounded to bf16.
enum class Operands { kFloat, kBFloat16 };

// What operations run on: a kernel table, threads, and scratch memory for each thread. Used by one
// caller at a time.
class Executor {
 public:
  Executor(const Kernels& kernels, int threads, Activations activations = Activations::kFloat);

  const Kernels& kernels() const { return kernels_; }
  ThreadPool& pool() { return pool_; }
  // Grows every thread's scratch to at least `floats`; call before the loop that uses it.
  void reserve_scratch(int64_t floats);
  float* scratch(int thread) { return scratch_[static_cast<size_t>(thread)].data(); }

  Activations activations() const { return activations_; }
  // Memory for the rounded rows of one product, valid until the next call.
  QuantizedRows quantized_rows(int64_t tokens, const WeightMatrix& weight);

  // Where set, operations leave records on it (tape.h), and products are those of gemm.h, on float
  // activations. Not owned.
  Tape* tape = nullptr;
  // Of the products of gemm.h that all threads share; bf16 is for kernels that have it.
  Operands operands = Operands::kFloat;
  // Memory of gemm.h for packed operands, valid until the next call.
  std::byte* packed(int64_t bytes) { return grown(packed_, bytes); }
  // Of matmul() for what low-rank updates add.
  float* low_rank(int64_t floats) { return grown(low_rank_, floats); }
  // Of the loss: as large as anything here, and as costly to get from the system for every batch.
  float* logits(int64_t floats) { return grown(logits_, floats); }

  // fn(first, last, thread) over shares of [0, count); by the caller alone when the whole is less
  // than what waking the threads costs. `work` is roughly the multiply-adds of one item.
  template <class Fn>
  void for_each(int64_t count, int64_t work, Fn&& fn) {
    constexpr int64_t kWorthSharing = 1 << 14;
    if (count * work < kWorthSharing) {
      if (count > 0) fn(int64_t{0}, count, 0);
    } else {
      pool_.parallel_for(count, fn);
    }
  }

 private:
  const Kernels& kernels_;
  ThreadPool pool_;
  std::vector<AlignedVector<float>> scratch_;  // [threads]
  Activations activations_;
  AlignedVector<int8_t> codes_;
  AlignedVector<float> steps_, sums_;
  AlignedVector<std::byte> packed_;
  AlignedVector<float> low_rank_, logits_;

  template <class T>
  static T* grown(AlignedVector<T>& memory, int64_t size) {
    if (std::ssize(memory) < size) memory.resize(static_cast<size_t>(size));
    return memory.data();
  }
};

// What an adapter adds to a matrix w [N, K]: scale * b a. Memory of the adapter's owner.
//
// With DoRA (arXiv 2402.09353) the rows of w + scale b a are given lengths of their own,
// `magnitude`, and what is added is `strength` times what that and the product change.
struct LowRank {
  const float* a = nullptr;  // [rank, K]
  const float* b = nullptr;  // [N, rank]
  int64_t rank = 0;
  float scale = 1;
  float strength = 1;                   // of DoRA alone: otherwise it is in the scale
  const float* magnitude = nullptr;     // [N], or nullptr without DoRA
  const float* inverse_norm = nullptr;  // [N]: 1 / |row of w + scale b a|, a constant to gradients

  float gain(int64_t row) const { return magnitude[row] * inverse_norm[row]; }
};

// A matrix of the model and what is added to it.
struct Linear : WeightMatrix {
  std::vector<LowRank> low_rank;

  bool has_magnitudes() const {
    return std::any_of(low_rank.begin(), low_rank.end(),
                       [](const LowRank& low) { return low.magnitude != nullptr; });
  }

  Linear() = default;
  Linear(const WeightMatrix& w) : WeightMatrix(w) {}
};

// Where the values of a matrix start when they are f32, as those in training are.
inline const float* values_of(const WeightMatrix& w) {
  return reinterpret_cast<const float*>(w.data);
}

// y = x wᵀ, and for each of w's adapters y += scale * (x aᵀ) bᵀ; with DoRA, z being their sum,
// y += strength * (gain z - x wᵀ)
struct Product {
  const Linear& w;
  Matrix y;
};
// Products of the same activations with several matrices: one loop over the rows of all of them.
void matmul(Executor& ex, Matrix x, std::initializer_list<Product> products);
inline void matmul(Executor& ex, Matrix x, const Linear& w, Matrix y) {
  matmul(ex, x, {{w, y}});
}

// Row t of `out` is row ids[t] of `table`, times `scale`.
void embed(Executor& ex, std::span<const Token> ids, const WeightMatrix& table, float scale,
           Matrix out);

// y = x / sqrt(mean of squares of the row + eps) * weight, row by row; y may be x.
void rms_norm(Executor& ex, Matrix x, std::span<const float> weight, double eps, Matrix y);

// gate = gelu_tanh(gate) * up
void gelu_mul(Executor& ex, Matrix gate, Matrix up);

// x += y
void add(Executor& ex, Matrix x, Matrix y);

// x = cap * tanh(x / cap)
void softcap(Executor& ex, Matrix x, double cap);

// Cosines and sines of a rotary embedding for the rows of a batch: angle[t, i] = position[t] *
// inverse_frequency[i], all rounded to f32 where the reference rounds.
class Rotary {
 public:
  // inverse_frequency[i] = theta^(-2i / head_dim) / factor, i < head_dim / 2
  Rotary(int head_dim, double theta, double factor);

  void set_positions(Executor& ex, std::span<const int64_t> positions);

  // Turns the pairs (i, i + head_dim / 2) of every head of x, [T, heads * head_dim]. A tape's
  // record uses the positions as they are when it is undone.
  void apply(Executor& ex, Matrix x) const;

 private:
  void turn(Executor& ex, Matrix x, float direction) const;

  int64_t half_;                          // head_dim / 2
  std::vector<float> inverse_frequency_;  // [half]
  std::vector<float> cos_, sin_;          // [T, half]
};

}  // namespace lapidary
