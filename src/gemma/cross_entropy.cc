#include <algorithm>

#include "lapidary/error.h"

#include "gemma/backprop.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

constexpr int64_t kLogitBytes = int64_t{256} << 20;
// Logits are read four times: of small vocabularies, few enough rows to stay in a cache, but as
// many as a product packs at once (gemm.cc), so that sums over rows are the same chains.
constexpr int64_t kCachedBytes = int64_t{1} << 20;
constexpr int64_t kFewestRows = 256;

// Logits of some rows become their gradient: scale * (softmax - 1 at the target), through the cap.
class LogitRows {
 public:
  LogitRows(Executor& ex, const Config& c, int64_t rows, bool gradients)
      : ex_(ex),
        cap_(c.final_logit_softcapping),
        keep_capped_(gradients && cap_ > 0),
        logits_(ex.logits((keep_capped_ ? 2 : 1) * rows * c.vocab_size)),
        capped_(logits_ + rows * c.vocab_size) {}

  Matrix values(int64_t rows, int64_t cols) { return {logits_, rows, cols}; }

  // Whether each row's target is its likeliest token.
  void find_likeliest(Matrix logits, std::span<const Token> targets, std::span<uint8_t> found) {
    ex_.for_each(logits.rows, logits.cols, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        const float* row = logits.row(i);
        const auto t = static_cast<size_t>(i);
        found[t] = std::max_element(row, row + logits.cols) - row == targets[t] ? 1 : 0;
      }
    });
  }

  // Each row's -log p(target). The logits become probabilities.
  void losses(Matrix logits, std::span<const Token> targets, std::span<double> nats) {
    if (cap_ > 0) softcap_all(logits);
    if (keep_capped_) std::copy_n(logits.data, logits.size(), capped_);
    ex_.for_each(logits.rows, 8 * logits.cols, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        const double logit = logits.row(i)[targets[static_cast<size_t>(i)]];
        nats[static_cast<size_t>(i)] = ex_.kernels().softmax(logits.row(i), logits.cols) - logit;
      }
    });
  }

  void to_gradients(Matrix p, std::span<const Token> targets, float scale) {
    ex_.for_each(p.rows, p.cols, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) {
        p.row(i)[targets[static_cast<size_t>(i)]] -= 1;
        for (int64_t v = 0; v < p.cols; ++v) p.row(i)[v] *= scale;
        if (!keep_capped_) continue;
        const float* capped = capped_ + i * p.cols;
        const auto cap = static_cast<float>(cap_);
        for (int64_t v = 0; v < p.cols; ++v) p.row(i)[v] *= 1 - capped[v] / cap * (capped[v] / cap);
      }
    });
  }

 private:
  void softcap_all(Matrix logits) {
    ex_.for_each(logits.rows, 8 * logits.cols, [&](int64_t first, int64_t last, int) {
      ex_.kernels().softcap(logits.row(first), (last - first) * logits.cols,
                            static_cast<float>(cap_));
    });
  }

  Executor& ex_;
  double cap_;
  bool keep_capped_;
  float* logits_;  // the executor's
  float* capped_;
};

// Rows whose logits are made at once, of `rows`.
int64_t rows_at_once(const Config& c, int64_t rows) {
  const int64_t row_bytes = int64_t{c.vocab_size} * int64_t{sizeof(float)};
  const int64_t cached =
      std::max(kFewestRows, kCachedBytes / row_bytes / kFewestRows * kFewestRows);
  return std::min({rows, cached, std::max<int64_t>(1, kLogitBytes / row_bytes)});
}

}  // namespace

int64_t cross_entropy_bytes(const Config& c, int64_t rows) {
  const int64_t logits = (c.final_logit_softcapping > 0 ? 2 : 1) * int64_t{c.vocab_size};
  return rows_at_once(c, rows) * (logits + 2 * c.hidden_size) * int64_t{sizeof(float)};
}

Loss cross_entropy(Executor& ex, const Config& c, const Linear& lm_head, Matrix h,
                   std::span<const Token> targets, float scale, std::span<uint8_t> likeliest) {
  LAPIDARY_CHECK(std::ssize(targets) == h.rows, "[cross_entropy] a target for each row");
  std::ranges::fill(likeliest, uint8_t{0});
  std::vector<int64_t> rows;
  for (int64_t t = 0; t < h.rows; ++t)
    if (targets[static_cast<size_t>(t)] != kNoTarget) rows.push_back(t);
  const int64_t at_once = rows_at_once(c, std::ssize(rows));
  LogitRows logit_rows(ex, c, at_once, ex.tape != nullptr);
  AlignedVector<float> inputs(static_cast<size_t>(at_once * h.cols)), d_inputs(inputs.size());
  std::vector<Token> wanted(static_cast<size_t>(at_once));
  std::vector<double> nats(wanted.size());
  std::vector<uint8_t> found(likeliest.empty() ? 0 : wanted.size());

  Loss loss;
  for (int64_t done = 0; done < std::ssize(rows); done += at_once) {
    const int64_t count = std::min(at_once, std::ssize(rows) - done);
    const Matrix x{inputs.data(), count, h.cols};
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = rows[static_cast<size_t>(done + i)];
      std::copy_n(h.row(t), h.cols, x.row(i));
      wanted[static_cast<size_t>(i)] = targets[static_cast<size_t>(t)];
    }
    const Matrix logits = logit_rows.values(count, c.vocab_size);
    gemm_rows(ex, x, lm_head, logits);
    if (!likeliest.empty()) {
      logit_rows.find_likeliest(logits, wanted, found);
      for (int64_t i = 0; i < count; ++i)
        likeliest[static_cast<size_t>(rows[static_cast<size_t>(done + i)])] =
            found[static_cast<size_t>(i)];
    }
    logit_rows.losses(logits, wanted, nats);
    for (int64_t i = 0; i < count; ++i) loss.nats += nats[static_cast<size_t>(i)];
    if (ex.tape == nullptr) continue;

    logit_rows.to_gradients(logits, wanted, scale);
    if (float* d_head = ex.tape->gradient(values_of(lm_head)))
      gemm(ex, Strided(logits).transposed(), x, {d_head, h.cols}, Into::kAdd);
    std::fill(d_inputs.begin(), d_inputs.end(), 0.0f);
    const Matrix dx{d_inputs.data(), count, h.cols}, dh = ex.tape->gradient(h);
    gemm_cols(ex, logits, lm_head, dx);
    for (int64_t i = 0; i < count; ++i) {
      float* row = dh.row(rows[static_cast<size_t>(done + i)]);
      for (int64_t k = 0; k < h.cols; ++k) row[k] += dx.row(i)[k];
    }
  }
  loss.tokens = std::ssize(rows);
  return loss;
}

}  // namespace lapidary
