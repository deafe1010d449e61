// Reading small JSON files (configs) with errors that name the file and the field.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lapidary {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the order of keys

// Parses a whole file. Throws Error{kInput}: missing, unreadable, larger than 64 MiB, nested too
// deeply or not JSON, naming the file and the byte where parsing stopped.
Json read_json_file(const std::filesystem::path& path);
OrderedJson read_ordered_json_file(const std::filesystem::path& path);

// The same for text in memory; `name` stands for the file in messages.
Json parse_json(std::string_view text, const std::string& name);

// A value as it stands in the file, for messages: on one line, cut after 60 bytes.
std::string shown_json(const Json& value);

// A JSON object with the name of where it came from. Each getter throws Error{kInput} like
// "config.json: field 'hidden_size': expected an integer, found "big"".
class JsonObject {
 public:
  // `where` names the file, later extended by the path to nested objects. `object` must outlive it.
  JsonObject(const Json& object, std::string where);

  bool has(std::string_view key) const;  // present and not null
  JsonObject object(std::string_view key) const;

  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t absent) const;
  double number(std::string_view key) const;
  double number(std::string_view key, double absent) const;
  bool boolean(std::string_view key, bool absent) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, std::string_view absent) const;

  const Json& raw(std::string_view key) const;  // throws when missing or null
  const Json& json() const { return *object_; }
  const std::string& where() const { return where_; }

  [[noreturn]] void fail_field(std::string_view key, std::string_view problem) const;

 private:
  const Json* object_;
  std::string where_;
};

}  // namespace lapidary
