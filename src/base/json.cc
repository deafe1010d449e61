#include "base/json.h"

#include <cstdint>
#include <utility>

#include "base/fail.h"
#include "base/mapped_file.h"

namespace lapidary {

namespace {

constexpr size_t kMaxJsonBytes = size_t{64} << 20;
constexpr int kMaxJsonDepth = 64;

}  // namespace

std::string shown_json(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

namespace {

template <class J>
J parse_as(std::string_view text, const std::string& name) {
  if (const size_t zero = text.find('\0'); zero != text.npos)  // where the parser would just stop
    fail("{}: not valid JSON (stopped at byte {})", name, zero + 1);
  bool too_deep = false;
  const auto watch_depth = [&](int depth, typename J::parse_event_t, J&) {
    if (depth > kMaxJsonDepth) too_deep = true;
    return !too_deep;
  };
  try {
    J value = J::parse(text, watch_depth);
    if (too_deep) fail("{}: JSON nested deeper than {} levels", name, kMaxJsonDepth);
    return value;
  } catch (const Json::parse_error& e) {
    fail("{}: not valid JSON (stopped at byte {})", name, e.byte);
  } catch (const Json::out_of_range&) {  // a number like 1e400
    fail("{}: JSON with a number that no double can hold", name);
  }
}

template <class J>
J read_as(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::open(path);
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxJsonBytes)
    fail("{}: {} bytes, more than a configuration file can have", path.string(), bytes.size());
  return parse_as<J>({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
  return parse_as<Json>(text, name);
}

Json read_json_file(const std::filesystem::path& path) {
  return read_as<Json>(path);
}

OrderedJson read_ordered_json_file(const std::filesystem::path& path) {
  return read_as<OrderedJson>(path);
}

JsonObject::JsonObject(const Json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) fail("{}: expected a JSON object, found {}", where_, shown_json(object));
}

void JsonObject::fail_field(std::string_view key, std::string_view problem) const {
  fail("{}: field '{}': {}", where_, key, problem);
}

bool JsonObject::has(std::string_view key) const {
  const auto it = object_->find(key);
  return it != object_->end() && !it->is_null();
}

const Json& JsonObject::raw(std::string_view key) const {
  const auto it = object_->find(key);
  if (it == object_->end() || it->is_null()) fail_field(key, "missing");
  return *it;
}

JsonObject JsonObject::object(std::string_view key) const {
  const Json& value = raw(key);
  if (!value.is_object())
    fail_field(key, fmt::format("expected an object, found {}", shown_json(value)));
  return JsonObject(value, fmt::format("{}: {}", where_, key));
}

int64_t JsonObject::integer(std::string_view key) const {
  const Json& value = raw(key);
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)
    fail_field(key, fmt::format("expected an integer below 2^63, found {}", shown_json(value)));
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {  // some writers put 64.0
    const double number = value.get<double>();
    if (number >= -0x1p53 && number <= 0x1p53) {
      const auto whole = static_cast<int64_t>(number);
      if (static_cast<double>(whole) == number) return whole;
    }
  }
  fail_field(key, fmt::format("expected an integer, found {}", shown_json(value)));
}

int64_t JsonObject::integer(std::string_view key, int64_t absent) const {
  return has(key) ? integer(key) : absent;
}

double JsonObject::number(std::string_view key) const {
  const Json& value = raw(key);
  if (!value.is_number())
    fail_field(key, fmt::format("expected a number, found {}", shown_json(value)));
  return value.get<double>();
}

double JsonObject::number(std::string_view key, double absent) const {
  return has(key) ? number(key) : absent;
}

bool JsonObject::boolean(std::string_view key, bool absent) const {
  if (!has(key)) return absent;
  const Json& value = raw(key);
  if (!value.is_boolean())
    fail_field(key, fmt::format("expected true or false, found {}", shown_json(value)));
  return value.get<bool>();
}

std::string JsonObject::string(std::string_view key) const {
  const Json& value = raw(key);
  if (!value.is_string())
    fail_field(key, fmt::format("expected a string, found {}", shown_json(value)));
  return value.get<std::string>();
}

std::string JsonObject::string(std::string_view key, std::string_view absent) const {
  return has(key) ? string(key) : std::string(absent);
}

}  // namespace lapidary
