#include "bench/report_parts.h"

#include <fmt/format.h>

namespace lapidary {

Json host_record(const BenchHost& host) {
  return {{"build_commit", host.commit}, {"build_number", host.number}, {"cpu_info", host.cpu}};
}

Report host_report(std::string title, const BenchHost& host) {
  return {.title = std::move(title),
          .facts = {{"processor", host.cpu},
                    {"lapidary", fmt::format("{} ({})", host.commit, host.number)}}};
}

Report model_report(std::string title, const BenchHost& host, const BenchedModel& model) {
  Report report = host_report(std::move(title), host);
  report.facts.push_back({"model", model.type + ", " + bytes_text(model.bytes)});
  report.facts.push_back({"folder", model.filename});
  report.facts.push_back({"arithmetic", fmt::format("{}, {}, keys and values in {}", model.isa,
                                                    model.compute, model.kv_type)});
  return report;
}

std::string number_text(double value) {
  return value >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string bytes_text(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib >= 1000 ? fmt::format("{:.2f} GiB", mib / 1024) : fmt::format("{:.0f} MiB", mib);
}

std::vector<std::string> limit_cells(const Ceiling& ceiling, double rate) {
  if (ceiling.name.empty()) return {"-", "-"};
  return {number_text(ceiling.value) + " " + ceiling.unit,
          fmt::format("{:.0f} %", 100 * rate / ceiling.tokens_per_second)};
}

Json limit_record(const Ceiling& ceiling, double rate) {
  if (ceiling.name.empty())
    return {{"limit", nullptr},
            {"limit_unit", nullptr},
            {"limit_name", nullptr},
            {"limit_ts", nullptr},
            {"share_of_limit", nullptr}};
  return {{"limit", ceiling.value},
          {"limit_unit", ceiling.unit},
          {"limit_name", ceiling.name},
          {"limit_ts", ceiling.tokens_per_second},
          {"share_of_limit", rate / ceiling.tokens_per_second}};
}

}  // namespace lapidary
