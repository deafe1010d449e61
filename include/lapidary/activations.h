// room: study
// Activations on disk, and changes to them: what run_with_cache and hooks are elsewhere.
//
//   const auto points = find_points(engine->config(), {"blocks.*.hook_resid_post"});
//   ActivationFile file("acts.safetensors", engine->config(), points, std::ssize(tokens));
//   session.set_tap(file.tap());
//   session.append(tokens);
//   file.finish();
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/tap.h"
#include "lapidary/token.h"

namespace lapidary {

// A point of a model: one of tap_points(), in a layer.
struct ModelPoint {
  int layer = -1;
  const TapPoint* point = nullptr;

  std::string name() const { return tap_name(layer, point->name); }
  bool is(const Activation& a) const { return a.layer == layer && a.point == point->name; }
};

// The points whose names match one of the patterns, in the order in which a token comes by: * and ?
// as in file names, over the whole name. Throws Error{kUsage} for a pattern that none matches.
std::vector<ModelPoint> find_points(const Config& config, std::span<const std::string> patterns);

// A safetensors file of activations, written as they come: a tensor of f32 [tokens, cols] for each
// point, by its name. No more than a chunk is ever in memory.
class ActivationFile {
 public:
  // Throws Error{kResource} when the file cannot be created or the disk has no room for it.
  ActivationFile(const std::filesystem::path& path, const Config& config,
                 std::span<const ModelPoint> points, int64_t tokens,
                 const std::map<std::string, std::string>& metadata = {});
  ~ActivationFile();
  ActivationFile(ActivationFile&&) noexcept;

  // For a session whose first `tokens` tokens are then appended. Refers to this object.
  Tap tap();
  int64_t bytes() const;
  // The file takes its name; all tokens must have come by.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A change of what is at a point.
struct Intervention {
  enum class Kind {
    kReplace,  // by the values; by zero where there are none
    kAdd,      // the values, `strength` times
  };
  ModelPoint at;
  Kind kind = Kind::kReplace;
  int64_t width = 0;      // columns of the point
  int64_t heads = 0;      // that they belong to, where it has some
  int64_t first_col = 0;  // of those that change: a head's, say
  int64_t cols = 0;
  // Of those columns: [T, cols] for the first T tokens, or a row for every token.
  std::vector<float> values = {};
  float strength = 1;
};

// "blocks.3.attn.hook_z" or, of a point in attention, "blocks.3.attn.hook_z:1" for a head alone; a
// pattern gives a change at each point that it matches. Throws Error{kUsage} for a head that is not
// there or a point that has none.
std::vector<Intervention> find_interventions(const Config& config, const std::string& text);

// Fills in the values of all changes from a file of activations. It has a tensor of each point's
// name, [cols] or [T, cols] of all the point's columns, f32, bf16 or f16. Of several rows `mean`
// takes the mean. Throws Error{kInput} naming file and tensor for one that is missing or of another
// shape.
void read_values(std::span<Intervention> changes, const std::filesystem::path& file, bool mean);

// All changes, in their order, to any number of sessions. Copies of the tap share them.
Tap intervening(std::vector<Intervention> changes);

// What a tap that changes things does to a text.
struct Effect {
  int64_t predicted = 0;  // tokens, all but the first
  double nll_before = 0;  // mean of -ln p(token | those before), nats
  double nll_after = 0;   // with the tap
  double kld = 0;         // mean over the predictions of sum of p ln(p / p with the tap)
  double top1 = 0;        // share of predictions whose likeliest token stays
  double seconds_before = 0, seconds_after = 0;  // of reading the text without, and with the tap
  std::vector<double> kld_by_token;              // [predicted]
  std::vector<double> gain_by_token;             // [predicted] nll with the tap less that without
};
// Runs the text with the tap and without, some tokens in turn, so that at most 64 MiB of logits are
// kept. Throws Error{kInput} for a text of fewer than two tokens and logits that are not finite,
// and as Session::append. `context` is the sessions'.
Effect effect_of(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                 const Tap& tap, int64_t context = 0, const Watch& watch = {});

}  // namespace lapidary
