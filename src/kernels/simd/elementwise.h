// Norms and pointwise functions over F, a vector of 16 floats (README.md).
#pragma once

#include "kernels/kernels.h"

namespace lapidary::simd {

// Calls fn(offset, count) for consecutive pieces of n values: count is 16 but for the last.
template <class Fn>
inline void for_pieces(int64_t n, Fn&& fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) fn(i, 16);
  if (i < n) fn(i, static_cast<int>(n - i));
}

template <class F, class T>
inline F load_piece(const T* p, int count) {
  return count == 16 ? F::load(p) : F::load(p, count);
}
template <class F>
inline void store_piece(float* p, F value, int count) {
  if (count == 16) {
    store(p, value);
  } else {
    store(p, value, count);
  }
}

// e^x to 2 units in the last place for x in [-87, 88]; smaller x count as -87, so e^-inf is
// about 2^-126 and not 0: callers that need 0 mask it. A NaN stays one, as the second of two.
template <class F>
inline F exp(F x) {
  x = min(F::broadcast(88.0f), max(F::broadcast(-87.0f), x));
  const F n = round(x * F::broadcast(1.44269504f));
  F r = fma(n, F::broadcast(-0.693359375f), x);  // ln 2 in two parts: 9 bits, and the rest
  r = fma(n, F::broadcast(2.12194440e-4f), r);
  F p = F::broadcast(1.9875691500e-4f);  // minimax polynomial of (e^r - 1 - r) / r^2 (Cephes)
  p = fma(p, r, F::broadcast(1.3981999507e-3f));
  p = fma(p, r, F::broadcast(8.3334519073e-3f));
  p = fma(p, r, F::broadcast(4.1665795894e-2f));
  p = fma(p, r, F::broadcast(1.6666665459e-1f));
  p = fma(p, r, F::broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + F::broadcast(1.0f);
  return p * exp2_int(n);
}

// tanh x = 1 - 2 / (e^2x + 1): absolute error below 2^-22, which is what soft caps need.
template <class F>
inline F tanh(F x) {
  const F one = F::broadcast(1.0f);
  return one - F::broadcast(2.0f) / (exp(x + x) + one);
}

template <class F>
void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  F squares = F::zero();
  for_pieces(n, [&](int64_t i, int count) {
    const F v = load_piece<F>(x + i, count);
    squares = fma(v, v, squares);
  });
  const float mean = sum(squares) / static_cast<float>(n);
  const F scale = F::broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for_pieces(n, [&](int64_t i, int count) {
    store_piece(y + i, load_piece<F>(x + i, count) * scale * load_piece<F>(weight + i, count),
                count);
  });
}

// gelu(x) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form without its
// cancellation, as (1 + tanh u) / 2 is the logistic function of 2u.
template <class F>
void gelu_mul(float* gate, const float* up, int64_t n) {
  const F one = F::broadcast(1.0f);
  for_pieces(n, [&](int64_t i, int count) {
    const F x = load_piece<F>(gate + i, count);
    const F cubic = fma(x * x, F::broadcast(0.044715f), one) * x;
    const F e = exp(cubic * F::broadcast(-2 * 0.7978845608f));
    store_piece(gate + i, x / (one + e) * load_piece<F>(up + i, count), count);
  });
}

// With s = 1 / (1 + e^-2u): gelu = x s, and its slope s + x s (1 - s) 2 u'.
template <class F>
void gelu_mul_backward(const float* gate, const float* up, float* d_gate, float* d_up, int64_t n) {
  const F one = F::broadcast(1.0f), two_c = F::broadcast(2 * 0.7978845608f);
  for_pieces(n, [&](int64_t i, int count) {
    const F x = load_piece<F>(gate + i, count);
    const F d = load_piece<F>(d_gate + i, count);
    const F square = x * x;
    const F cubic = fma(square, F::broadcast(0.044715f), one) * x;
    const F s = one / (one + exp(F::zero() - cubic * two_c));
    const F slope_u = fma(square, F::broadcast(3 * 0.044715f), one) * two_c;
    const F slope = fma(x * s * (one - s), slope_u, s);
    store_piece(d_up + i, fma(d, x * s, load_piece<F>(d_up + i, count)), count);
    store_piece(d_gate + i, d * slope * load_piece<F>(up + i, count), count);
  });
}

// Sums of a vocabulary are long: parts of it in f32, the parts in double.
template <class F>
double softmax(float* x, int64_t n) {
  constexpr int64_t kPart = 2048;
  float largest = x[0];
  int64_t whole = 0;
  if (n >= 16) {
    F most = F::load(x);
    for (whole = 16; whole + 16 <= n; whole += 16) most = max(most, F::load(x + whole));
    largest = max_lane(most);
  }
  for (int64_t i = whole; i < n; ++i) largest = largest < x[i] ? x[i] : largest;
  double total = 0;
  for (int64_t first = 0; first < n; first += kPart) {
    F part = F::zero();
    for_pieces(n - first < kPart ? n - first : kPart, [&](int64_t i, int count) {
      float* at = x + first + i;
      const F e = exp(load_piece<F>(at, count) - F::broadcast(largest));
      store_piece(at, e, count);
      part = part + (count == 16 ? e : F::load(at, count));
    });
    total += double{sum(part)};
  }
  const F scale = F::broadcast(static_cast<float>(1 / total));
  for_pieces(n, [&](int64_t i, int count) {
    store_piece(x + i, load_piece<F>(x + i, count) * scale, count);
  });
  return double{largest} + __builtin_log(total);
}

template <class F>
void softcap(float* x, int64_t n, float cap) {
  const F c = F::broadcast(cap);
  for_pieces(n, [&](int64_t i, int count) {
    store_piece(x + i, c * tanh(load_piece<F>(x + i, count) / c), count);
  });
}

}  // namespace lapidary::simd
