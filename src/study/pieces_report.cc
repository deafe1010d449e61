#include "study/pieces_report.h"

#include <fmt/format.h>

namespace lapidary {

std::string measured(const MeanOfPieces& value, int decimals) {
  std::string text = fmt::format("{:.{}f}", value.mean, decimals);
  if (value.margin) text += fmt::format(" ± {:.{}f}", *value.margin, decimals);
  return text;
}

nlohmann::ordered_json to_json(const MeanOfPieces& value) {
  nlohmann::ordered_json json = {{"mean", value.mean}, {"margin", nullptr}};
  if (value.margin) json["margin"] = *value.margin;
  return json;
}

}  // namespace lapidary
