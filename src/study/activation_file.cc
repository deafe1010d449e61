#include <algorithm>

#include "lapidary/activations.h"

#include "base/fail.h"
#include "io/safetensors.h"
#include "study/points.h"

namespace lapidary {

struct ActivationFile::Impl {
  std::vector<ModelPoint> points;
  int64_t tokens;
  SafetensorsWriter writer;
};

namespace {

std::vector<TensorDeclaration> declarations(const Config& config,
                                            std::span<const ModelPoint> points, int64_t tokens) {
  std::vector<TensorDeclaration> list;
  for (const ModelPoint& p : points) {
    const int64_t heads = heads_of(config, *p.point);
    list.push_back({p.name(), DType::kF32,
                    heads > 0 ? std::vector<int64_t>{tokens, heads, config.head_dim}
                              : std::vector<int64_t>{tokens, p.point->cols(config)}});
  }
  return list;
}

}  // namespace

ActivationFile::ActivationFile(const std::filesystem::path& path, const Config& config,
                               std::span<const ModelPoint> points, int64_t tokens,
                               const std::map<std::string, std::string>& metadata)
    : impl_(new Impl{{points.begin(), points.end()},
                     tokens,
                     {path, declarations(config, points, tokens), metadata}}) {}
ActivationFile::~ActivationFile() = default;
ActivationFile::ActivationFile(ActivationFile&&) noexcept = default;

Tap ActivationFile::tap() {
  return [impl = impl_.get()](const Activation& a) {
    const auto here = std::ranges::find_if(impl->points, [&](auto& p) { return p.is(a); });
    if (here == impl->points.end()) return;
    const int64_t rows = std::min(a.rows, impl->tokens - a.position);
    if (rows <= 0) return;
    impl->writer.write_at(static_cast<size_t>(here - impl->points.begin()),
                          a.position * a.cols * int64_t{sizeof(float)},
                          std::as_bytes(std::span(a.values, static_cast<size_t>(rows * a.cols))));
  };
}

int64_t ActivationFile::bytes() const {
  return impl_->writer.total_bytes();
}

void ActivationFile::finish() {
  impl_->writer.finish();
}

}  // namespace lapidary
