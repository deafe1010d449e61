#include "study/pattern_file.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "lapidary/tap.h"

#include "base/fail.h"

namespace lapidary {

namespace {

// `chosen`, or all `count` of them.
std::vector<int> some_of(std::vector<int> chosen, int count, const char* what) {
  if (chosen.empty()) {
    chosen.resize(static_cast<size_t>(count));
    std::iota(chosen.begin(), chosen.end(), 0);
  }
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] < 0 || chosen[i] >= count)
      fail_usage("{} {}: the model has {}, counted from 0", what, chosen[i], count);
    if (std::ranges::count(chosen, chosen[i]) > 1)
      fail_usage("{} {}: given twice", what, chosen[i]);
  }
  return chosen;
}

std::vector<TensorDeclaration> declarations(const std::vector<int>& layers, size_t heads,
                                            int64_t tokens) {
  std::vector<TensorDeclaration> list;
  for (const int layer : layers)
    list.push_back({tap_name(layer, "attn.hook_pattern"),
                    DType::kF32,
                    {static_cast<int64_t>(heads), tokens, tokens}});
  return list;
}

Metadata with_heads(Metadata metadata, const std::vector<int>& heads) {
  metadata["heads"] = fmt::format("{}", fmt::join(heads, ","));
  return metadata;
}

}  // namespace

PatternFile::PatternFile(const std::filesystem::path& path, const Config& config,
                         std::vector<int> layers, std::vector<int> heads, int64_t tokens,
                         Metadata metadata)
    : layers_(some_of(std::move(layers), config.num_hidden_layers, "layer")),
      heads_(some_of(std::move(heads), config.num_attention_heads, "head")),
      tokens_(tokens),
      writer_(path, declarations(layers_, heads_.size(), tokens),
              with_heads(std::move(metadata), heads_)),
      slots_(static_cast<size_t>(tokens / kPatternQueries + 2)) {}

void PatternFile::take(const PatternBlock& block, size_t slot) {
  if (std::ranges::find(layers_, block.layer) == layers_.end()) return;
  Rows& rows = slots_[slot];
  rows.first = block.first_query;
  rows.count = block.queries;
  rows.weights.assign(heads_.size() * static_cast<size_t>(block.queries * tokens_), 0.0f);
  float* row = rows.weights.data() + block.first_key;
  for (const int head : heads_)
    for (int64_t i = 0; i < block.queries; ++i, row += tokens_)
      std::copy_n(block.row(head, i), block.keys, row);
}

void PatternFile::write(int layer, size_t slots) {
  const auto found = std::ranges::find(layers_, layer);
  if (found == layers_.end()) return;
  for (size_t slot = 0; slot < slots; ++slot) {
    const Rows& rows = slots_[slot];
    const auto size = static_cast<size_t>(rows.count * tokens_);
    for (size_t h = 0; h < heads_.size(); ++h) {
      const int64_t at = (static_cast<int64_t>(h) * tokens_ + rows.first) * tokens_;
      writer_.write_at(static_cast<size_t>(found - layers_.begin()), at * int64_t{sizeof(float)},
                       std::as_bytes(std::span(rows.weights).subspan(h * size, size)));
    }
  }
}

}  // namespace lapidary
