#include "generate/chat_template.h"

#include <fstream>
#include <iterator>

#include "base/json.h"
#include "io/gguf_keys.h"

namespace lapidary {

namespace fs = std::filesystem;

namespace {

std::string text_of(const Json& templates) {
  if (templates.is_string()) return templates.get<std::string>();
  if (!templates.is_array()) return {};
  for (const Json& item : templates)  // several by name
    if (item.is_object() && item.value("name", Json()) == "default")
      return text_of(item.value("template", Json()));
  return {};
}

}  // namespace

std::string chat_template(const GgufContents& contents, const std::string& where) {
  constexpr const char* kKey = "tokenizer.chat_template";
  const GgufKeys keys(contents, where);
  return keys.has(kKey) ? keys.string(kKey) : std::string();
}

std::string chat_template(const fs::path& folder) {
  if (!fs::is_directory(folder))
    return chat_template(GgufFile::open(folder).contents(), folder.string());
  std::ifstream file(folder / "chat_template.jinja", std::ios::binary);
  if (file) return {std::istreambuf_iterator<char>(file), {}};
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!fs::exists(folder / name)) continue;
    const Json json = read_json_file(folder / name);
    if (json.is_object() && json.contains("chat_template")) return text_of(json["chat_template"]);
  }
  return {};
}

}  // namespace lapidary
