#include "lapidary/tune.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "lapidary/bench.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "kernels/kernels.h"

namespace lapidary {

namespace {

// Selects kernels for the engines that are made while it lives.
class ForcedKernels {
 public:
  explicit ForcedKernels(const std::string& isa) {
    if (const char* before = std::getenv(kVariable)) before_ = before;
    if (!isa.empty()) ::setenv(kVariable, isa.c_str(), 1);
  }
  ~ForcedKernels() {
    if (before_)
      ::setenv(kVariable, before_->c_str(), 1);
    else
      ::unsetenv(kVariable);
  }
  ForcedKernels(const ForcedKernels&) = delete;
  ForcedKernels& operator=(const ForcedKernels&) = delete;

 private:
  static constexpr const char* kVariable = "LAPIDARY_ISA";
  std::optional<std::string> before_;
};

struct Candidate {
  std::string value;
  std::string isa;  // empty: the usual one
  EngineOptions engine;
  bool allowed = true;
};

// 1, 2, 4, ..., and those that mean something on this machine.
std::vector<int> thread_counts(const CpuBudget& budget) {
  std::set<int> counts = {budget.threads(), budget.physical_cores, budget.allowed_cpus};
  for (int n = 1; n < budget.allowed_cpus; n *= 2) counts.insert(n);
  return {counts.begin(), counts.end()};
}

class Tuner {
 public:
  Tuner(const TuneOptions& options, const Watch& watch) : o_(options), watch_(watch) {}

  std::vector<TuneChoice> run() {
    const CpuBudget budget = cpu_budget();
    std::vector<Candidate> candidates;
    for (const Kernels* kernels : supported_kernels())
      if (kernels != supported_kernels().front())  // the definition, which is slow
        candidates.push_back({std::string(kernels->isa), std::string(kernels->isa), {}});
    if (candidates.empty()) candidates.push_back({std::string(best_kernels().isa), "", {}});
    isa_ = settle("isa", decoding(0), candidates, candidates.back().value);

    threads(budget, "threads", decoding(0), &EngineOptions::threads);
    threads(budget, "threads_batch", {.prompt = o_.prompt}, &EngineOptions::threads_batch);

    candidates.clear();
    for (const int64_t chunk : {64, 128, 256, 512, 1024}) {
      if (chunk > 2 * o_.prompt) break;  // as the one before: all at once
      candidates.push_back({std::to_string(chunk), isa_, engine_});
      candidates.back().engine.chunk = chunk;
    }
    candidates.push_back({"0", isa_, engine_});
    const SpeedTest prompt{.prompt = 2 * o_.prompt};
    engine_.chunk = std::stoll(settle("chunk", prompt, candidates, "0"));

    candidates.clear();
    for (const KvType type : kKvTypes) {
      candidates.push_back({std::string(name_of(type)), isa_, engine_, type != KvType::kQ4});
      candidates.back().engine.kv_type = type;
    }
    settle("kv_type", decoding(o_.depth), candidates, "bf16");
    return std::move(choices_);
  }

 private:
  static constexpr int kSettings = 5;

  SpeedTest decoding(int64_t depth) const { return {.gen = o_.gen, .depth = depth}; }

  void threads(const CpuBudget& budget, const char* setting, const SpeedTest& test,
               int EngineOptions::*field) {
    std::vector<Candidate> candidates;
    for (const int count : thread_counts(budget)) {
      candidates.push_back({std::to_string(count), isa_, engine_});
      candidates.back().engine.*field = count;
    }
    engine_.*field = std::stoi(settle(setting, test, candidates, std::to_string(budget.threads())));
  }

  // Measures the candidates in turns. Returns what is chosen.
  std::string settle(const char* setting, const SpeedTest& test,
                     const std::vector<Candidate>& candidates, const std::string& usual) {
    TuneChoice choice{.setting = setting,
                      .measured = test.gen > 0 ? fmt::format("{} steps of decoding", test.gen)
                                               : fmt::format("a prompt of {} tokens", test.prompt)};
    if (test.depth > 0) choice.measured += fmt::format(" after {} tokens", test.depth);
    for (const Candidate& c : candidates)
      choice.values.push_back({.value = c.value, .allowed = c.allowed});
    for (int round = 0; candidates.size() > 1 && round < o_.rounds; ++round)
      for (size_t i = 0; i < candidates.size(); ++i) {
        watch_.throw_if_stopped();
        choice.values[i].tokens_per_second.push_back(speed(candidates[i], test));
        const auto done = static_cast<int64_t>(choices_.size());
        const auto part = static_cast<int64_t>(round * static_cast<int>(candidates.size())) +
                          static_cast<int64_t>(i) + 1;
        const auto whole = static_cast<int64_t>(candidates.size()) * o_.rounds;
        watch_.report(done * 1000 + 1000 * part / whole, kSettings * 1000);
      }
    choose(choice, usual);
    choices_.push_back(choice);
    return choice.chosen;
  }

  double speed(const Candidate& candidate, const SpeedTest& test) const {
    const ForcedKernels forced(candidate.isa);
    const auto engine = Engine::load(o_.model, candidate.engine);
    SpeedBench bench(
        engine,
        {.repetitions = 1, .context = test.depth + test.prompt + test.gen, .limits = false});
    return bench.run(test, Watch{{}, watch_.stop}).samples_ts().front();
  }

  const TuneOptions& o_;
  const Watch& watch_;
  std::vector<TuneChoice> choices_;
  std::string isa_;
  EngineOptions engine_;  // with what is chosen
};

// By how much a value was faster than another in the middle one of the rounds, if in all of them;
// else 0.
double gain_of(const TuneValue& value, const TuneValue& other) {
  std::vector<double> ratios;
  for (size_t round = 0; round < value.tokens_per_second.size(); ++round)
    ratios.push_back(value.tokens_per_second[round] / other.tokens_per_second[round]);
  return std::ranges::all_of(ratios, [](double r) { return r > 1; }) ? median(ratios) - 1 : 0;
}

}  // namespace

double TuneValue::median() const {
  return tokens_per_second.empty() ? 0 : lapidary::median(tokens_per_second);
}

void choose(TuneChoice& choice, const std::string& usual) {
  const auto is_usual = [&](const TuneValue& v) { return v.value == usual; };
  const auto found = std::ranges::find_if(choice.values, is_usual);
  LAPIDARY_CHECK(found != choice.values.end(), "the usual value is one of those");
  choice.chosen = usual;
  if (choice.values.size() == 1) {
    choice.why = "the only one there is";
    return;
  }
  const auto faster = [](const TuneValue& a, const TuneValue& b) {
    return a.median() < b.median();
  };
  auto allowed = choice.values;
  std::erase_if(allowed, [](const TuneValue& v) { return !v.allowed; });
  const TuneValue& best = *std::ranges::max_element(allowed, faster);
  const double gain = gain_of(best, *found);
  if (best.value != usual && gain > kTuneGain) {
    choice.chosen = best.value;
    choice.why = fmt::format("{:.0f} % faster than {}, which is usual: {:.1f} against {:.1f} tok/s",
                             100 * gain, usual, best.median(), found->median());
  } else if (best.value == usual) {
    choice.why = fmt::format("the fastest: {:.1f} tok/s", best.median());
  } else {
    choice.why =
        fmt::format("usual, {:.1f} tok/s; the fastest, {}, is {:.1f} % ahead, which may be chance",
                    found->median(), best.value, 100 * gain);
  }
}

std::vector<TuneChoice> tune(const TuneOptions& options, const Watch& watch) {
  if (options.rounds < 1) fail_usage("rounds: {} given, expected 1 or more", options.rounds);
  return Tuner(options, watch).run();
}

}  // namespace lapidary
