// Attention of a few query rows over blocks of cached keys and values (README.md for F).
//
// For each row and block in order: scores, the running maximum m, the running sum of exponentials l
// and the running weighted sum of values o:
//     m' = max(m, scores)    o = o e^(m-m') + sum e^(score-m') v    l likewise
// A piece starts afresh and is merged into the pieces before it by the same rule.
// A key a row does not see gets weight 0, and adding 0 changes no bit: a row's result does not
// depend on the rows it shares a call with.
#pragma once

#include "base/float16.h"
#include "kernels/kernels.h"
#include "kernels/kv_rows.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

constexpr int kRowTile = 4;  // rows whose scores, or weighted sums, are in registers together
constexpr float kLowest = -3.0e38f;

// The part of a block that at least one row sees: offsets [begin, end) within the block.
struct BlockSpan {
  int begin;
  int end;
};

// Keys or values of a block: at(j, d) is 16 of them, of position j from dimension d on.
template <class F, class T>
struct DenseRows {
  const T* data;
  int head_dim;

  DenseRows(const std::byte* block, int dim)
      : data(reinterpret_cast<const T*>(block)), head_dim(dim) {}
  F at(int j, int d) const { return F::load(data + j * head_dim + d); }
};

template <class F, KvType kType>
struct CodedRows {
  static constexpr int kBits = code_bits(kType);
  const uint8_t* data;
  int64_t row_bytes, scale_bytes;

  CodedRows(const std::byte* block, int dim)
      : data(reinterpret_cast<const uint8_t*>(block)),
        row_bytes(kv_row_bytes(kType, dim)),
        scale_bytes(kv_scale_bytes(kType, dim)) {}
  F at(int j, int d) const {
    const uint8_t* row = data + j * row_bytes;
    BFloat16 group[2];  // scale and bias
    __builtin_memcpy(group, row + d / kKvGroup * 4, sizeof group);
    typename F::template Codes<kBits> codes;
    codes.set(F::broadcast(group[0]), F::broadcast(group[1]));
    return codes.decode(row + scale_bytes + d * kBits / 8);
  }
};

// scores[r * kKvBlock + j] = q_r . k_j * scale for kRows rows and the keys of `span`.
template <class F, class Rows, int kRows>
void block_scores(const float* const* q, const Rows& k, int head_dim, float scale, BlockSpan span,
                  float* scores) {
  const auto dots = [&]<int kKeys>(int j) {
    F acc[kRows][kKeys];
    for (auto& row : acc)
      for (F& a : row) a = F::zero();
    for (int d = 0; d < head_dim; d += 16) {
      F keys[kKeys];
      for (int i = 0; i < kKeys; ++i) keys[i] = k.at(j + i, d);
      for (int r = 0; r < kRows; ++r) {
        const F qs = F::load(q[r] + d);
        for (int i = 0; i < kKeys; ++i) acc[r][i] = fma(qs, keys[i], acc[r][i]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kKeys; ++i) scores[r * kKvBlock + j + i] = sum(acc[r][i]) * scale;
  };
  int j = span.begin;
  for (; j + 2 <= span.end; j += 2) dots.template operator()<2>(j);
  for (; j < span.end; ++j) dots.template operator()<1>(j);
}

// o_r += sum over the keys of `span` of weights[r, j] v_j, for kRows rows.
template <class F, class Rows, int kRows>
void block_values(const float* weights, const Rows& v, int head_dim, BlockSpan span, float* o) {
  for (int d = 0; d < head_dim; d += 16) {
    F acc[kRows];
    for (int r = 0; r < kRows; ++r) acc[r] = F::load(o + r * head_dim + d);
    for (int j = span.begin; j < span.end; ++j) {
      const F values = v.at(j, d);
      for (int r = 0; r < kRows; ++r)
        acc[r] = fma(F::broadcast(weights[r * kKvBlock + j]), values, acc[r]);
    }
    for (int r = 0; r < kRows; ++r) store(o + r * head_dim + d, acc[r]);
  }
}

// Turns one row's scores of a block into weights e^(score - m'), 0 outside [begin, end).
// Updates m and l, and returns e^(m - m'), the factor of what was summed before.
template <class F>
float block_softmax(float* scores, int begin, int end, float softcap, float& m, float& l) {
  const auto fill_hidden = [&](float value) {
    for (int j = 0; j < begin; ++j) scores[j] = value;
    for (int j = end; j < kKvBlock; ++j) scores[j] = value;
  };
  fill_hidden(0);
  if (softcap > 0) simd::softcap<F>(scores, kKvBlock, softcap);
  fill_hidden(kLowest);
  F largest = F::broadcast(m);
  for (int j = 0; j < kKvBlock; j += 16) largest = max(largest, F::load(scores + j));
  const float new_m = max_lane(largest);
  for (int j = 0; j < kKvBlock; j += 16)
    store(scores + j, exp(F::load(scores + j) - F::broadcast(new_m)));
  fill_hidden(0);
  F total = F::zero();
  for (int j = 0; j < kKvBlock; j += 16) total = total + F::load(scores + j);
  float factor[16] = {1};
  if (m != new_m) store(factor, exp(F::broadcast(m - new_m)));
  m = new_m;
  l = l * factor[0] + sum(total);
  return factor[0];
}

// Folds one block into kRows rows, the first of which is row r of the call.
template <class F, class Rows, int kRows>
void fold_block(const AttendArgs& a, int64_t block, int r, float* scores, float* o, float* m,
                float* l) {
  const int64_t start = block * kKvBlock;
  const auto offset = [&](int64_t position) {
    return static_cast<int>(position < start              ? 0
                            : position > start + kKvBlock ? kKvBlock
                                                          : position - start);
  };
  BlockSpan span{kKvBlock, 0};
  int begin[kRows], end[kRows];
  for (int i = 0; i < kRows; ++i) {
    begin[i] = offset(a.first[r + i]);
    end[i] = offset(a.last[r + i]);
    if (begin[i] >= end[i]) begin[i] = end[i] = 0;
    if (begin[i] < end[i] && begin[i] < span.begin) span.begin = begin[i];
    if (end[i] > span.end) span.end = end[i];
  }
  if (span.begin >= span.end) return;
  const std::byte* data = a.blocks[block - a.first_block];
  const Rows k(data + a.k_offset, a.head_dim), v(data + a.v_offset, a.head_dim);
  block_scores<F, Rows, kRows>(a.q + r, k, a.head_dim, a.scale, span, scores);
  for (int i = 0; i < kRows; ++i) {
    const float keep =
        block_softmax<F>(scores + i * kKvBlock, begin[i], end[i], a.softcap, m[r + i], l[r + i]);
    float* row = o + (r + i) * a.head_dim;
    if (keep != 1.0f)
      for (int d = 0; d < a.head_dim; d += 16)
        store(row + d, F::load(row + d) * F::broadcast(keep));
  }
  block_values<F, Rows, kRows>(scores, v, a.head_dim, span, o + r * a.head_dim);
}

// What a row has seen: o, the weighted sum of values, and the running m and l.
struct RowState {
  float* o;  // [head_dim]
  float m;
  float l;
};

// Adds a later piece to what was seen before it.
template <class F>
void merge(RowState& total, const RowState& piece, int head_dim) {
  if (piece.l == 0) return;  // the row sees nothing of it
  float keep = 0, take = 1;
  if (total.l != 0) {
    const float m = total.m > piece.m ? total.m : piece.m;
    const auto factor = [m](float old) {
      float lanes[16] = {1};
      if (old != m) store(lanes, exp(F::broadcast(old - m)));
      return lanes[0];
    };
    keep = factor(total.m);
    take = factor(piece.m);
    total.m = m;
  } else {
    total.m = piece.m;
  }
  total.l = total.l * keep + piece.l * take;
  for (int d = 0; d < head_dim; d += 16)
    store(total.o + d,
          fma(F::load(total.o + d), F::broadcast(keep), F::load(piece.o + d) * F::broadcast(take)));
}

// All blocks of a piece that some row sees, from nothing.
template <class F, class Rows>
void fold_piece(const AttendArgs& a, int64_t piece, float* scores, float* o, float* m, float* l) {
  int64_t first = a.first[0], last = a.last[0];
  for (int r = 0; r < a.rows; ++r) {
    m[r] = kLowest;
    l[r] = 0;
    if (a.first[r] < first) first = a.first[r];
    if (a.last[r] > last) last = a.last[r];
    for (int d = 0; d < a.head_dim; d += 16) store(o + r * a.head_dim + d, F::zero());
  }
  const int64_t start = piece * kAttendPiece, end = start + kAttendPiece;
  if (first < start) first = start;
  if (last > end) last = end;
  for (int64_t block = first / kKvBlock; block * kKvBlock < last; ++block) {
    int r = 0;
    for (; r + 4 <= a.rows; r += 4) fold_block<F, Rows, 4>(a, block, r, scores, o, m, l);
    for (; r + 2 <= a.rows; r += 2) fold_block<F, Rows, 2>(a, block, r, scores, o, m, l);
    for (; r < a.rows; ++r) fold_block<F, Rows, 1>(a, block, r, scores, o, m, l);
  }
}

template <class F>
void finish_row(const RowState& total, int head_dim, float* out) {
  const F inverse = F::broadcast(1.0f / total.l);
  for (int d = 0; d < head_dim; d += 16) store(out + d, F::load(total.o + d) * inverse);
}

template <class F, class Rows>
void attend_rows(const AttendArgs& a) {
  float* scores = a.scratch;                   // [kRowTile, kKvBlock]
  float* o = a.scratch + kRowTile * kKvBlock;  // [rows, head_dim] of a piece
  float* sums = o + kAttendRows * a.head_dim;  // [rows, head_dim] of all
  float m[kAttendRows], l[kAttendRows];
  if (a.partial != nullptr) {
    fold_piece<F, Rows>(a, a.piece, scores, o, m, l);
    for (int r = 0; r < a.rows; ++r) {
      float* out = a.partial + r * attend_partial_floats(a.head_dim);
      for (int d = 0; d < a.head_dim; d += 16) store(out + d, F::load(o + r * a.head_dim + d));
      out[a.head_dim] = m[r];
      out[a.head_dim + 1] = l[r];
    }
    return;
  }
  RowState totals[kAttendRows];
  int64_t first = a.first[0], last = a.last[0];
  for (int r = 0; r < a.rows; ++r) {
    totals[r] = {sums + r * a.head_dim, kLowest, 0};
    for (int d = 0; d < a.head_dim; d += 16) store(totals[r].o + d, F::zero());
    if (a.first[r] < first) first = a.first[r];
    if (a.last[r] > last) last = a.last[r];
  }
  for (int64_t piece = first / kAttendPiece; piece * kAttendPiece < last; ++piece) {
    fold_piece<F, Rows>(a, piece, scores, o, m, l);
    for (int r = 0; r < a.rows; ++r)
      merge<F>(totals[r], {o + r * a.head_dim, m[r], l[r]}, a.head_dim);
  }
  for (int r = 0; r < a.rows; ++r) finish_row<F>(totals[r], a.head_dim, a.out[r]);
}

template <class F>
void attend(const AttendArgs& a) {
  switch (a.kv_type) {
    case KvType::kF32:
      return attend_rows<F, DenseRows<F, float>>(a);
    case KvType::kBF16:
      return attend_rows<F, DenseRows<F, BFloat16>>(a);
    case KvType::kQ8:
      return attend_rows<F, CodedRows<F, KvType::kQ8>>(a);
    case KvType::kQ4:
      return attend_rows<F, CodedRows<F, KvType::kQ4>>(a);
  }
}

template <class F>
void merge_attention(const float* partials, int64_t count, int64_t stride, int head_dim,
                     float* out) {
  for (int d = 0; d < head_dim; d += 16) store(out + d, F::zero());
  RowState total{out, kLowest, 0};
  for (int64_t i = 0; i < count; ++i) {
    const float* p = partials + i * stride;
    merge<F>(total, {const_cast<float*>(p), p[head_dim], p[head_dim + 1]}, head_dim);
  }
  finish_row<F>(total, head_dim, out);
}

}  // namespace lapidary::simd
