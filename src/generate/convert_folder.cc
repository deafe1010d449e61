#include <algorithm>
#include <malloc.h>
#include <utility>

#include <fmt/ranges.h>

#include "lapidary/convert.h"
#include "lapidary/tokenizer.h"

#include "base/fail.h"
#include "base/float16.h"
#include "base/json.h"
#include "generate/conversion.h"
#include "generate/convert_check.h"
#include "generate/convert_plan.h"
#include "generate/folder_files.h"
#include "io/sharded_writer.h"
#include "io/staging.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

std::string settings_text(const FolderOptions& options) {
  std::vector<std::string> parts;
  if (options.dequantize) parts.emplace_back("dequantised");
  if (!options.recipe.empty())
    parts.push_back("recipe " + fs::path(options.recipe).filename().string());
  if (options.bits != 0) parts.push_back(fmt::format("{} bits", options.bits));
  if (options.bits != 0 || !options.recipe.empty())
    parts.push_back(fmt::format("groups of {}", options.group_size));
  if (!options.dtype.empty()) parts.push_back(options.dtype);
  return fmt::format("{}", fmt::join(parts, ", "));
}

// What config.json is to say of the type of the weights; empty: what it says already.
std::string declared_type(const FolderOptions& options, DType source) {
  if (!options.dtype.empty()) return torch_name(dtype_option(options.dtype));
  return options.dequantize ? torch_name(source) : "";
}

ConversionMemory memory_of(const Model& model, const ConversionPlan& plan, bool check, int threads,
                           const fs::path& in) {
  ConversionMemory memory(threads);
  for (const PlannedTensor& tensor : plan.tensors)
    if (!tensor.copied() && !tensor.verbatim)
      memory.add_tensor(tensor.matrix.rows, tensor.matrix.cols, tensor.encoder());
  if (check) {
    memory.add_weights_check(model.config);
    memory.add_logits_check(model.config);
  }
  if (model.gguf)
    memory.add_gguf_vocabulary(model.config.vocab_size);
  else if (check && Tokenizer::present(in))
    memory.add_tokenizer(in, model.config.vocab_size);
  return memory;
}

std::vector<TensorDeclaration> declare(const PlannedTensor& tensor) {
  if (tensor.after.affine())
    return declare_matrix(tensor.name, tensor.matrix.rows, tensor.matrix.cols, tensor.after);
  return {{tensor.name, tensor.after.dtype, tensor.shape}};
}

// The weights as they go into the encoder: MLX quantises what it holds in the type of the scales.
RowSource source_of(const PlannedTensor& tensor) {
  if (tensor.values) return *tensor.values;
  RowSource source = rows_of(tensor.matrix);
  if (!tensor.after.affine()) return source;
  source.fill = [fill = source.fill, cols = source.cols, dtype = tensor.after.dtype](
                    int64_t row, float* values) {
    fill(row, values);
    for (int64_t i = 0; i < cols; ++i) values[i] = rounded_to(dtype, values[i]);
  };
  return source;
}

void write_weights(const ConversionPlan& plan, const Model& source, const std::string& where,
                   ShardedWriter& writer, RowStream& stream, ConversionProgress& progress) {
  const auto sink = [&](std::span<const std::byte> bytes) { writer.write(bytes); };
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.copied() || tensor.verbatim) {
      for (const std::span<const std::byte> bytes : tensor.stored_bytes()) sink(bytes);
      source.release_pages();
      progress.add(tensor.weights());
      continue;
    }
    const std::string what = fmt::format("{}: tensor {}", where, tensor.name);
    int64_t done = 0;
    stream.write(source_of(tensor), tensor.encoder(), what, sink, [&](int64_t rows) {
      source.release_pages();
      progress.add((rows - std::exchange(done, rows)) * tensor.matrix.cols);
    });
  }
  writer.finish();
}

// The tensors of the plan as the result has them; throws when one is stored otherwise than planned.
std::vector<WeightMatrix> result_tensors(const ConversionPlan& plan, const Model& result,
                                         const std::string& where) {
  const std::vector<const WeightMatrix*> matrices = list_matrices(result);
  size_t next = 0;
  std::vector<WeightMatrix> list;
  for (const PlannedTensor& tensor : plan.tensors) {
    WeightMatrix after = tensor.matrix;
    if (tensor.in_text_model()) {
      after = *matrices[next++];
    } else {
      const TensorView* view = result.checkpoint.find(tensor.name);
      if (view == nullptr) fail("{}: tensor {} is missing", where, tensor.name);
      if (tensor.copied() && !std::ranges::equal(view->bytes, tensor.view->bytes))
        fail("{}: tensor {}: is not a copy", where, tensor.name);
      after.dtype = view->dtype;
      after.data = view->bytes.data();
    }
    if (storage_of(after) != tensor.after)
      fail("{}: tensor {}: stored as {}, asked for {}", where, tensor.name,
           encoder_of(storage_of(after)).name, encoder_of(tensor.after).name);
    list.push_back(after);
  }
  return list;
}

// `after` is where the result has a tensor that was to keep its bytes.
void check_copy(const PlannedTensor& tensor, const WeightMatrix& after, const std::string& where) {
  PlannedTensor copy = tensor;
  copy.matrix = after;
  const TensorView view{tensor.after.dtype,
                        tensor.shape,
                        {after.data, static_cast<size_t>(after.rows * after.row_bytes())}};
  if (tensor.view != nullptr) copy.view = &view;
  const auto before = tensor.stored_bytes(), now = copy.stored_bytes();
  for (size_t part = 0; part < before.size(); ++part)
    if (!std::ranges::equal(before[part], now[part]))
      fail("{}: tensor {}: is not a copy", where, tensor.name);
}

ConversionCheck check_result(const Model& source, const ConversionPlan& plan,
                             const fs::path& folder, RowStream& stream,
                             ConversionProgress& progress, const Watch& watch) {
  const Model result = load_model(folder);
  const std::vector<WeightMatrix> after = result_tensors(plan, result, folder.string());
  std::vector<TensorPair> pairs;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const PlannedTensor& tensor = plan.tensors[i];
    if (tensor.copied()) continue;
    if (tensor.verbatim) {
      check_copy(tensor, after[i], folder.string());
      source.release_pages();
      result.release_pages();
      progress.add(tensor.weights());
      continue;
    }
    const RowEncoder encoder = tensor.encoder();
    pairs.push_back({tensor.name, tensor.values ? *tensor.values : rows_of(tensor.matrix),
                     rows_of(after[i]), encoder.block_values, encoder.error_share,
                     tensor.in_text_model()});
  }
  ConversionCheck check;
  check_weights(pairs, folder.string(), stream.pool(), check, [&](int64_t weights) {
    source.release_pages();
    result.release_pages();
    progress.add(weights);
  });
  if (plan.inspect) plan.inspect(result, stream.pool());
  check_logits(source, result, check_tokens(source, folder), folder.string(),
               stream.pool().threads(), check, watch);
  return check;
}

std::vector<Conversion::File> list_files(const fs::path& folder) {
  std::vector<Conversion::File> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const std::string name = entry.path().filename().string(); !name.starts_with('.'))
      files.push_back({name, static_cast<int64_t>(entry.file_size())});
  std::ranges::sort(files, {}, &Conversion::File::name);
  return files;
}

// What a GGUF file says of its vocabulary is forgotten then: tens of megabytes of small pieces.
void write_other_parts(Model& model, const fs::path& in, const fs::path& to,
                       const ConversionPlan& plan, const std::string& torch_dtype) {
  OrderedJson config = model.gguf ? OrderedJson::parse(config_json(model.config, torch_dtype))
                                  : read_ordered_json_file(in / "config.json");
  const std::optional<SetBlockTraining> set_block =
      model.gguf && !plan.set_block ? set_block_training(model) : plan.set_block;
  if (set_block) config[kSetBlockKey] = to_json(*set_block);
  write_config(std::move(config), to, plan.quantization, model.gguf ? "" : torch_dtype);
  if (!model.gguf) return copy_other_files(in, to);
  write_other_files(*model.gguf, to);
  model.gguf->forget_metadata();
  ::malloc_trim(0);
}

}  // namespace

void check_target(const fs::path& in, const fs::path& out, bool overwrite) {
  std::error_code ignored;  // what cannot be asked about cannot be written either, which says why
  if (!fs::exists(out, ignored)) return;
  const fs::path inner = fs::weakly_canonical(in, ignored);
  const fs::path outer = fs::weakly_canonical(out, ignored);
  if (std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end())
    fail("{}: holds the model to convert", out.string());
  if (!overwrite)
    throw Error(ErrorKind::kInput, fmt::format("{}: is there already", out.string()),
                "--force replaces it");
  if (!fs::is_directory(out, ignored)) fail("{}: is not a folder", out.string());
  if (!fs::is_empty(out, ignored) && !fs::exists(out / "config.json", ignored))
    throw Error(ErrorKind::kInput, fmt::format("{}: is no model, and not replaced", out.string()),
                "choose another name");
}

Conversion convert_folder(const fs::path& in, const fs::path& out, const FolderOptions& given,
                          const Watch& watch) {
  check_model_path(in);
  check_folder_options(given, in.extension() == ".gguf" || fs::is_regular_file(in));
  check_target(in, out, given.overwrite);
  Model model = load_model(in);
  FolderOptions options = given;
  if (model.gguf && options.dtype.empty()) options.dtype = dtype_from_gguf(model);
  const ConversionPlan plan = plan_conversion(model, options, in.string());
  return write_folder(model, plan, out, options, settings_text(options), watch);
}

Conversion write_folder(Model& model, const ConversionPlan& plan, const fs::path& out,
                        const FolderOptions& options, const std::string& settings,
                        const Watch& watch) {
  const fs::path in = model.gguf ? model.gguf->path() : model.checkpoint.folder();
  RowStream stream(options.threads);
  const ConversionMemory memory =
      memory_of(model, plan, options.check, stream.pool().threads(), in);
  memory.check(in);

  const int64_t weights = plan.weights();
  ConversionProgress progress(watch, weights * (options.check ? 2 : 1));
  Staging staging(out);
  const Provenance provenance =
      provenance_of(model, settings, [&](int64_t) { watch.throw_if_stopped(); });
  write_other_parts(model, in, staging.path(), plan, declared_type(options, model.dtype));
  write_readme(in, staging.path(), provenance);
  std::vector<std::vector<TensorDeclaration>> groups;
  for (const PlannedTensor& tensor : plan.tensors) groups.push_back(declare(tensor));
  ShardedWriter writer(staging.path(), std::move(groups),
                       metadata_of(provenance, plan.quantization ? "mlx" : "pt"),
                       options.shard_bytes);
  write_weights(plan, model, in.string(), writer, stream, progress);

  Conversion made{.files = list_files(staging.path()),
                  .tensors = std::ssize(plan.tensors),
                  .changed = plan.changed,
                  .bits_per_weight =
                      8 * static_cast<double>(writer.total_bytes()) / static_cast<double>(weights),
                  .memory_forecast = memory.bytes()};
  for (const Conversion::File& file : made.files) made.bytes += file.bytes;
  if (options.check)
    made.check = checked(staging, [&] {
      return check_result(model, plan, staging.path(), stream, progress, watch);
    });
  watch.throw_if_stopped();
  staging.commit();
  return made;
}

}  // namespace lapidary
