#include "generate/convert_check.h"

#include <algorithm>
#include <cmath>
#include <malloc.h>
#include <numeric>

#include "lapidary/tokenizer.h"

#include "base/fail.h"
#include "base/rng.h"
#include "generate/divergence.h"

namespace lapidary {

namespace {

constexpr int64_t kTokens = 24;
constexpr const char* kText =
    "The old lighthouse keeper climbed the stairs every evening, lit the lamp, and wrote one line "
    "about the sea: calm today, 14 ships, nothing lost.";

// Sums over a row of squares: of the differences, of the weights, and of what may differ.
struct RowSums {
  double difference = 0;
  double weight = 0;
  double allowed = 0;
};

RowSums compare_row(std::span<const float> before, std::span<const float> after,
                    int64_t block_values, double error_share) {
  RowSums sums;
  const auto block = static_cast<size_t>(block_values);
  for (size_t first = 0; first < before.size(); first += block) {
    float low = 0, high = 0;
    for (size_t i = first; i < first + block; ++i) {
      const double x = before[i], difference = after[i] - x;
      sums.difference += difference * difference;
      sums.weight += x * x;
      low = std::min(low, before[i]);
      high = std::max(high, before[i]);
    }
    const double worst = error_share * (static_cast<double>(high) - low);
    sums.allowed += static_cast<double>(block) * worst * worst;
  }
  return sums;
}

RowSums compare_tensor(const TensorPair& tensor, ThreadPool& pool,
                       const std::function<void(int64_t)>& after_piece) {
  const int64_t rows = tensor.before.rows, cols = tensor.before.cols;
  const int64_t step = RowStream::piece_rows(cols);
  std::vector<RowSums> of_rows(static_cast<size_t>(std::min(step, rows)));
  RowSums all;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    pool.parallel_for(count, [&](int64_t begin, int64_t end, int) {
      std::vector<float> before(static_cast<size_t>(cols)), after(static_cast<size_t>(cols));
      for (int64_t row = begin; row < end; ++row) {
        tensor.before.fill(first + row, before.data());
        tensor.after.fill(first + row, after.data());
        of_rows[static_cast<size_t>(row)] =
            compare_row(before, after, tensor.block_values, tensor.error_share);
      }
    });
    for (int64_t row = 0; row < count; ++row) {
      const RowSums& sums = of_rows[static_cast<size_t>(row)];
      all.difference += sums.difference;
      all.weight += sums.weight;
      all.allowed += sums.allowed;
    }
    after_piece(count * cols);
  }
  return all;
}

double share(double difference, double weight) {
  return weight > 0 ? std::sqrt(difference / weight) : 0;
}

// f32 [T, V] after each token.
std::vector<float> logits_of(const Model& model, std::span<const Token> tokens, Executor& executor,
                             const Watch& watch) {
  const Config& config = model.config;
  State state(config, std::ssize(tokens));
  auto pool = std::make_shared<KvBlockPool>(KvCache::block_bytes(config, KvType::kF32));
  KvCache cache(config, KvType::kF32, pool);
  const Segment segment{&cache, std::ssize(tokens)};
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
  state.observer = [&](const std::string&, Matrix) {  // lets go of what was read so far
    watch.throw_if_stopped();
    model.release_pages();
  };
  forward(executor, config, model.weights, scale, {&segment, 1}, tokens, state);
  std::vector<float> logits(tokens.size() * static_cast<size_t>(config.vocab_size));
  head(executor, config, model.weights, state.h,
       {logits.data(), std::ssize(tokens), config.vocab_size});
  model.release_pages();
  return logits;
}

// Sums over the logits of squares: of the differences, and of the distances from a row's mean.
struct LogitSums {
  double difference = 0;
  double spread = 0;
};

void compare_logits(std::span<const float> before, std::span<const float> after, LogitSums& sums) {
  const double mean =
      std::accumulate(before.begin(), before.end(), 0.0) / static_cast<double>(before.size());
  for (size_t i = 0; i < before.size(); ++i) {
    const double difference = static_cast<double>(after[i]) - before[i];
    sums.difference += difference * difference;
    sums.spread += (before[i] - mean) * (before[i] - mean);
  }
}

// What an error of the weights, as a share of them, may do to the logits, as a share of their
// spread. Each of the 7 matrices of a layer adds that share to what it computes; gate and up, like
// query and key, come out as one product each, which leaves 5. The errors are independent, so their
// squares add up, with the embedding at either end; a factor of 2 is for those that the layers
// above make larger. From 1 on the result says no more about the model than its average answer.
double logit_limit(const Config& config, double weight_error) {
  constexpr double kArithmetic = 1e-4;  // both compute in f32, in another order
  const double sources = 5.0 * config.num_hidden_layers + 2;
  return std::min(1.0, kArithmetic + 2 * weight_error * std::sqrt(sources));
}

}  // namespace

RowSource rows_of(const WeightMatrix& matrix) {
  return {matrix.rows, matrix.cols, [&matrix](int64_t row, float* values) {
            best_kernels().dequantize_row(matrix, row, values);
          }};
}

void check_weights(std::span<const TensorPair> tensors, const std::string& where, ThreadPool& pool,
                   ConversionCheck& check, const std::function<void(int64_t)>& after_piece) {
  RowSums all;
  for (const TensorPair& tensor : tensors) {
    const RowSums sums = compare_tensor(tensor, pool, after_piece);
    const double error = share(sums.difference, sums.weight);
    // Not "greater": what is no number is wrong too. The room is for the sums' own rounding.
    if (!(sums.difference <= sums.allowed * (1 + 1e-9)))
      fail(
          "{}: tensor {}: weights differ by {:.2g} of their size, more than the {:.2g} that the "
          "format explains",
          where, tensor.name, error, share(sums.allowed, sums.weight));
    if (check.worst_tensor.empty() || error > check.worst_tensor_error) {
      check.worst_tensor = tensor.name;
      check.worst_tensor_error = error;
    }
    all.difference += sums.difference;
    all.weight += sums.weight;
  }
  check.weight_error = share(all.difference, all.weight);
}

void check_logits(const Model& before, const Model& after, std::span<const Token> tokens,
                  const std::string& where, int threads, ConversionCheck& check,
                  const Watch& watch) {
  Executor executor(best_kernels(), threads, Activations::kFloat);
  const std::vector<float> a = logits_of(before, tokens, executor, watch);
  const std::vector<float> b = logits_of(after, tokens, executor, watch);
  const auto vocabulary = static_cast<size_t>(before.config.vocab_size);
  LogitSums sums;
  double divergence = 0;
  int64_t same = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = [&](const std::vector<float>& x) {
      return std::span(x).subspan(t * vocabulary, vocabulary);
    };
    compare_logits(row(a), row(b), sums);
    const RowComparison both = compare_rows(row(a), row(b), executor.pool());
    divergence += both.kld;
    same += both.top_a == both.top_b;
  }
  const auto count = static_cast<double>(tokens.size());
  check.tokens = std::ssize(tokens);
  check.kld_mean = divergence / count;
  check.top1_agreement = static_cast<double>(same) / count;
  check.logit_error = share(sums.difference, sums.spread);
  check.logit_error_limit = logit_limit(before.config, check.weight_error);
  if (!(check.logit_error <= check.logit_error_limit))
    fail(
        "{}: logits differ by {:.3g} of their spread, expected at most {:.3g} (KLD {:.3g}, the "
        "same "
        "likeliest token {:.0f} % of the time)",
        where, check.logit_error, check.logit_error_limit, check.kld_mean,
        100 * check.top1_agreement);
}

int64_t check_logits_bytes(const Config& config) {
  const int64_t logits = kTokens * config.vocab_size * int64_t{sizeof(float)};
  return 2 * logits + State::bytes(config, kTokens) +
         config.num_hidden_layers * KvCache::block_bytes(config, KvType::kF32);
}

std::vector<Token> check_tokens(const Model& model, const std::filesystem::path& folder) {
  const int vocabulary = model.config.vocab_size;
  std::vector<Token> tokens = {std::min(2, vocabulary - 1)};
  if (Tokenizer::present(folder)) {
    {
      const Tokenizer tokenizer = Tokenizer::load(folder);
      tokens = {tokenizer.bos()};
      const std::vector<Token> text = tokenizer.encode(kText);
      tokens.insert(tokens.end(), text.begin(), text.end());
      std::erase_if(tokens, [&](Token id) { return id >= vocabulary; });
    }
    ::malloc_trim(0);  // a large vocabulary's many small pieces, before the logits need their place
  } else {
    const CounterRng rng(0);
    for (uint64_t i = 1; i < kTokens; ++i)
      tokens.push_back(static_cast<Token>(rng.bits(i) % static_cast<uint64_t>(vocabulary)));
  }
  tokens.resize(std::min<size_t>(tokens.size(), kTokens));
  return tokens;
}

}  // namespace lapidary
