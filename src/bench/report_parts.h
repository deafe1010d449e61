// What the reports of this room are put together from.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "bench/reports.h"

namespace lapidary {

using Json = nlohmann::ordered_json;

// The keys that every record begins with, and the same for a reader.
Json host_record(const BenchHost& host);
Report host_report(std::string title, const BenchHost& host);
// The same with the facts of a model.
Report model_report(std::string title, const BenchHost& host, const BenchedModel& model);

// Three significant digits, and more where there are more before the point.
std::string number_text(double value);
// "24 MiB", "1.50 GiB"
std::string bytes_text(int64_t bytes);

// A ceiling beside the rate that was reached, as table cells and as keys. `rate` counts what the
// ceiling's tokens_per_second counts; without a ceiling the cells are "-" and the keys null.
inline const std::vector<ReportTable::Column> kLimitColumns = {{"limit", true}, {"share", true}};
std::vector<std::string> limit_cells(const Ceiling& ceiling, double rate);
Json limit_record(const Ceiling& ceiling, double rate);

}  // namespace lapidary
