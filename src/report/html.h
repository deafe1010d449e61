// A page of one file: its style, its script and the chart library are in it, and it loads nothing.
#pragma once

#include <string>
#include <string_view>

#include "report/report.h"

namespace lapidary {

// For text between tags and in quoted attributes.
std::string html_escape(std::string_view text);

// For a value inside <script>: JSON in which nothing can end the element.
std::string script_json(const nlohmann::ordered_json& value);

std::string html_page(const Report& report);

}  // namespace lapidary
