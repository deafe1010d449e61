// lapidary list: the models in the hub's cache.
#include <algorithm>

#include <fmt/format.h>

#include "command_line.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Models that other programs fetched into the same cache are listed too. A file that several "
      "revisions share counts for each of them, and once in the total.\n"
      "\n"
      "Examples:\n"
      "  lapidary list\n"
      "  HF_HOME=/data/hf lapidary list --json");
}

Json to_json(const std::vector<CachedModel>& models, const std::string& cache) {
  Json list = Json::array();
  int64_t total = 0;
  for (const CachedModel& model : models) {
    Json revisions = Json::array();
    for (const CachedRevision& revision : model.revisions)
      revisions.push_back({{"commit", revision.commit},
                           {"refs", revision.refs},
                           {"files", revision.files},
                           {"bytes", revision.bytes}});
    list.push_back({{"model", model.repo},
                    {"path", model.folder.string()},
                    {"bytes", model.bytes},
                    {"unfinished_bytes", model.unfinished_bytes},
                    {"revisions", revisions}});
    total += model.bytes + model.unfinished_bytes;
  }
  return {{"cache", cache}, {"bytes", total}, {"models", list}};
}

std::string to_text(const std::vector<CachedModel>& models) {
  size_t width = 5;
  for (const CachedModel& model : models) width = std::max(width, model.repo.size());
  int64_t total = 0;
  const auto row = [&](const std::string& model, const std::string& commit,
                       const std::string& files, const std::string& size, const std::string& refs) {
    std::string line =
        fmt::format("{:<{}}  {:<7}  {:>5}  {:>10}  {}", model, width, commit, files, size, refs);
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  };
  std::string text = row("model", "commit", "files", "size", "refs");
  for (const CachedModel& model : models) {
    for (const CachedRevision& revision : model.revisions)
      text += row(model.repo, revision.commit.substr(0, 7), fmt::to_string(revision.files),
                  bytes_text(revision.bytes), joined(revision.refs, ", "));
    if (model.unfinished_bytes > 0)
      text += row(model.repo, "", "", bytes_text(model.unfinished_bytes),
                  "unfinished: lapidary pull goes on");
    total += model.bytes + model.unfinished_bytes;
  }
  return text + row("total", "", "", bytes_text(total), "");
}

int run(const Options& o) {
  apply(o.verbosity);
  const std::filesystem::path cache = hub_cache_folder();
  const std::vector<CachedModel> models = cached_models(cache);
  if (o.json) {
    out_json(to_json(models, cache.string()));
  } else if (models.empty()) {
    if (!o.verbosity.quiet) note("lapidary: no models in the cache " + cache.string());
  } else {
    out(to_text(models));
  }
  return kOk;
}

}  // namespace

void add_list(Program& program) {
  add_verb<Options>(program, "list", "List the models that were fetched", setup, run);
}

}  // namespace lapidary::cli
