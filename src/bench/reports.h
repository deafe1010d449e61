// What was measured as a report: a table, records and charts.
#pragma once

#include <span>
#include <string>

#include "lapidary/bench.h"

#include "bench/peers.h"
#include "report/report.h"

namespace lapidary {

// The model that was measured, as records and pages name it.
struct BenchedModel {
  std::string filename;
  std::string type;  // "gemma3 1B affine 4-bit, groups of 64"
  int64_t bytes = 0;
  int64_t parameters = 0;
  std::string isa;
  std::string compute;  // "fast" or "exact"
  std::string kv_type;  // "bf16"
};
BenchedModel describe_model(const Engine& engine);

// The machine and the program, as they are named in every report.
struct BenchHost {
  std::string cpu;
  std::string commit;
  int64_t number = 0;
};
BenchHost this_host();

Report limits_report(const BenchHost& host, std::span<const Limit> limits);
Report speed_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results);
// The same tests as a curve over the depth.
Report curve_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results);

// `file_bytes` of the model, and the largest memory of the process.
Report natural_report(const BenchHost& host, const BenchedModel& model,
                      std::span<const NaturalResult> results, int64_t file_bytes,
                      int64_t peak_rss_bytes);
// Greedy tokens are compared with the first result's.
Report peers_report(const BenchHost& host, const BenchedModel& model, const PeerOptions& options,
                    std::span<const PeerResult> results);
Report kernels_report(const BenchHost& host, std::span<const KernelResult> results);

}  // namespace lapidary
