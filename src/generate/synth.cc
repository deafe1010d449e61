#include "lapidary/synth.h"

#include <algorithm>
#include <fstream>
#include <type_traits>

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/float16.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "gemma/model.h"
#include "io/quantization.h"
#include "io/safetensors.h"
#include "quant/affine.h"

namespace lapidary {

namespace {

constexpr float kWeightDeviation = 0.02f;  // HF's initializer_range
constexpr float kNormDeviation = 0.1f;
constexpr int64_t kPieceValues = int64_t{8} << 20;  // made between two writes: 32 MiB of f32

struct StoredType {
  DType dtype;
  const char* torch_name;
};

StoredType stored_type(const std::string& name) {
  if (name == "bf16") return {DType::kBF16, "bfloat16"};
  if (name == "f16") return {DType::kF16, "float16"};
  if (name == "f32") return {DType::kF32, "float32"};
  fail_usage("dtype: '{}' given, expected bf16, f16 or f32", name);
}

// One tensor of the model, or one vector (cols = 0).
struct Part {
  std::string name;
  int64_t rows;
  int64_t cols;
};

std::vector<Part> list_parts(const Config& config) {
  std::vector<Part> parts;
  Weights weights;
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  visit_tensors(config, weights, [&](const std::string& name, auto&, int64_t rows, int64_t cols) {
    parts.push_back({name, rows, cols});
  });
  return parts;
}

void check_options(const SynthOptions& options, const std::vector<Part>& parts) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  if (options.bits == 0) return;
  const auto one_of = [](int value, std::initializer_list<int> allowed) {
    return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  };
  if (!one_of(options.bits, {2, 3, 4, 5, 6, 8}))
    fail_usage("bits: {} given, expected 2, 3, 4, 5, 6 or 8", options.bits);
  if (!one_of(options.group_size, {32, 64, 128}))
    fail_usage("group-size: {} given, expected 32, 64 or 128", options.group_size);
  for (const Part& part : parts)
    if (part.cols % options.group_size != 0)
      fail_usage("group-size: {} does not divide the width {} of {}", options.group_size, part.cols,
                 part.name);
}

// Removes what was made, in case of failure: the files listed, and the folders that did not exist.
class Cleanup {
 public:
  explicit Cleanup(const std::filesystem::path& folder) {
    for (auto path = std::filesystem::absolute(folder).lexically_normal();
         !path.empty() && !std::filesystem::exists(path); path = path.parent_path())
      folders_.push_back(path);
  }
  ~Cleanup() {
    std::error_code ignored;
    for (const auto& file : files_) std::filesystem::remove(file, ignored);
    for (const auto& folder : folders_) std::filesystem::remove(folder, ignored);  // if empty
  }
  Cleanup(const Cleanup&) = delete;
  Cleanup& operator=(const Cleanup&) = delete;

  void add(const std::filesystem::path& file) { files_.push_back(file); }
  void disarm() {
    files_.clear();
    folders_.clear();
  }

 private:
  std::vector<std::filesystem::path> files_, folders_;
};

// Makes the values of a checkpoint and hands them to its writer.
class Maker {
 public:
  Maker(const SynthOptions& options, const std::vector<Part>& parts, DType dtype)
      : options_(options),
        parts_(parts),
        dtype_(dtype),
        format_{options.bits, options.group_size, dtype},
        pool_(options.threads > 0 ? options.threads : cpu_budget().threads()) {}

  std::vector<TensorDeclaration> declarations() const {
    std::vector<TensorDeclaration> list;
    for (const Part& part : parts_) {
      if (part.cols == 0) {
        list.push_back({part.name, dtype_, {part.rows}});
      } else if (options_.bits == 0) {
        list.push_back({part.name, dtype_, {part.rows, part.cols}});
      } else {
        const std::string path = part.name.substr(0, part.name.rfind(".weight"));
        const int64_t groups = part.cols / format_.group;
        list.push_back({part.name, DType::kU32, {part.rows, part.cols * format_.bits / 32}});
        list.push_back({path + ".scales", dtype_, {part.rows, groups}});
        list.push_back({path + ".biases", dtype_, {part.rows, groups}});
      }
    }
    return list;
  }

  void write(SafetensorsWriter& writer, const Watch& watch) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& part = parts_[i];
      const CounterRng rng(options_.seed, i);
      if (part.cols == 0)
        write_dense({part.name, 1, part.rows}, rng, kNormDeviation, writer, watch);
      else if (options_.bits == 0)
        write_dense(part, rng, kWeightDeviation, writer, watch);
      else
        write_affine(part, rng, writer, watch);
    }
  }

 private:
  // fn(first row, rows) for consecutive pieces of a matrix.
  template <class Fn>
  static void for_each_piece(const Part& part, const SafetensorsWriter& writer, const Watch& watch,
                             Fn&& fn) {
    const int64_t step = std::max<int64_t>(1, kPieceValues / part.cols);
    for (int64_t row = 0; row < part.rows; row += step) {
      watch.throw_if_stopped();
      fn(row, std::min(step, part.rows - row));
      watch.report(writer.written_bytes(), writer.total_bytes());
    }
  }

  // values[i] = element `first` + i of a tensor.
  static void fill(const CounterRng& rng, int64_t first, float deviation, std::span<float> values) {
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = deviation * rng.normal(static_cast<uint64_t>(first) + i);
  }

  void write_dense(const Part& part, const CounterRng& rng, float deviation,
                   SafetensorsWriter& writer, const Watch& watch) {
    const int64_t row_bytes = part.cols * size_of(dtype_);
    for_each_piece(part, writer, watch, [&](int64_t first, int64_t rows) {
      codes_.resize(static_cast<size_t>(rows * row_bytes));
      pool_.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
        std::vector<float> values(static_cast<size_t>(part.cols));
        for (int64_t row = begin; row < end; ++row) {
          fill(rng, (first + row) * part.cols, deviation, values);
          store_floats(values, dtype_, codes_.data() + row * row_bytes);
        }
      });
      writer.write(codes_);
    });
  }

  // Scales and biases come after all codes in the file and are held until then.
  void write_affine(const Part& part, const CounterRng& rng, SafetensorsWriter& writer,
                    const Watch& watch) {
    const int64_t row_bytes = format_.code_bytes(part.cols);
    const int64_t scale_bytes = format_.scale_bytes(part.cols);
    std::vector<std::byte> scales(static_cast<size_t>(part.rows * scale_bytes));
    std::vector<std::byte> biases(scales.size());
    for_each_piece(part, writer, watch, [&](int64_t first, int64_t rows) {
      codes_.resize(static_cast<size_t>(rows * row_bytes));
      pool_.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
        std::vector<float> values(static_cast<size_t>(part.cols));
        for (int64_t row = begin; row < end; ++row) {
          fill(rng, (first + row) * part.cols, kWeightDeviation, values);
          affine_encode(
              values, format_,
              {codes_.data() + row * row_bytes, scales.data() + (first + row) * scale_bytes,
               biases.data() + (first + row) * scale_bytes});
        }
      });
      writer.write(codes_);
    });
    writer.write(scales);
    writer.write(biases);
  }

  const SynthOptions& options_;
  const std::vector<Part>& parts_;
  DType dtype_;
  AffineFormat format_;
  ThreadPool pool_;
  std::vector<std::byte> codes_;  // of a piece
};

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) fail_resource("{}: cannot write", path.string());
}

std::string config_text(const Config& config, const SynthOptions& options, const char* dtype) {
  auto json = nlohmann::ordered_json::parse(config_json(config, dtype));
  if (options.bits != 0) {
    QuantizationSpec spec;
    spec.defaults = {options.bits, options.group_size};
    const Json block = quantization_json(spec);
    json["quantization"] = json["quantization_config"] = block;
  }
  return json.dump(2) + "\n";
}

// What the released models say, as far as the vocabulary has the ids.
std::string generation_config_text(const Config& config) {
  const Token end_of_turn = config.family == Family::kGemma3 ? 106 : 107;
  nlohmann::ordered_json json = {{"bos_token_id", 2}, {"do_sample", true}, {"eos_token_id", {1}}};
  if (end_of_turn < config.vocab_size) json["eos_token_id"].push_back(end_of_turn);
  json["pad_token_id"] = 0;
  json["temperature"] = 1.0;
  json["top_k"] = 64;
  json["top_p"] = 0.95;
  return json.dump(2) + "\n";
}

void check_empty(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) return;
  if (!std::filesystem::is_directory(folder)) fail("{}: is not a folder", folder.string());
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename() == "config.json" || entry.path().extension() == ".safetensors")
      fail("{}: holds a model already ({})", folder.string(), entry.path().filename().string());
}

}  // namespace

void synthesize(const Config& config, const SynthOptions& options,
                const std::filesystem::path& folder, const Watch& watch) {
  const StoredType type = stored_type(options.dtype);
  const std::vector<Part> parts = list_parts(config);
  check_options(options, parts);
  check_empty(folder);

  Cleanup cleanup(folder);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_resource("{}: cannot create: {}", folder.string(), error.message());
  Maker maker(options, parts, type.dtype);
  SafetensorsWriter writer(folder / "model.safetensors", maker.declarations(),
                           {{"format", options.bits != 0 ? "mlx" : "pt"}});
  maker.write(writer, watch);
  cleanup.add(folder / "model.safetensors");
  cleanup.add(folder / "generation_config.json");
  cleanup.add(folder / "config.json");
  writer.finish();
  write_text(folder / "generation_config.json", generation_config_text(config));
  write_text(folder / "config.json", config_text(config, options, type.torch_name));
  cleanup.disarm();
}

}  // namespace lapidary
