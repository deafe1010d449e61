// lapidary study: a look inside.
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/text_hash.h"
#include "io/output_file.h"
#include "study_verbs.h"
#include "verbs.h"

namespace lapidary::cli {

namespace fs = std::filesystem;

void add_study_output(CLI::App& verb, StudyOutput& output) {
  output.named =
      verb.add_option("-o,--output", output.folder, "Folder for the page and the figures")
          ->type_name("DIR")
          ->group("Output")
          ->capture_default_str();
  verb.add_flag("--force", output.force, "Write to a folder that is there")->group("Output");
  verb.add_flag("--json", output.json,
                "Print one JSON document; a folder is written where -o names it")
      ->group("Output");
}

void check(const StudyOutput& output) {
  if (!output.writes()) return;
  std::error_code error;  // what cannot be asked about cannot be made either, which says why
  const bool empty = fs::is_directory(output.folder, error) && fs::is_empty(output.folder, error);
  if (!output.force && fs::exists(output.folder, error) && !empty)
    throw Error(ErrorKind::kUsage, fmt::format("{} is there already", output.folder),
                "name another with -o, or give --force");
  fs::path place = fs::absolute(output.folder);
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  if (!fs::is_directory(place, error)) fail("{}: is not a folder", place.string());
  if (::access(place.c_str(), W_OK | X_OK) != 0)
    throw Error(ErrorKind::kResource,
                fmt::format("{}: {}", place.string(), std::generic_category().message(errno)));
}

Json subject_json(const Engine& engine, const std::vector<Token>& tokens) {
  return {{"model", engine.folder().filename().string()},
          {"fingerprint", fmt::format("{:016x}", engine.fingerprint())},
          {"text_hash", fmt::format("{:016x}", hash_tokens(0, tokens))}};
}

void write_study(const StudyOutput& output, const char* name, const Json& figures,
                 const Report& report, const std::string& summary) {
  if (output.json) out_json(figures);
  if (!output.writes()) return;
  const fs::path folder = output.folder;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw Error(ErrorKind::kResource, fmt::format("{}: {}", folder.string(), error.message()));
  write_file(folder / name, figures.dump() + "\n");
  write_file(folder / "report.html", render(report, ReportFormat::kHtml));
  if (!output.json) out(summary);
  note((folder / "report.html").string());
}

void add_study(Program& program) {
  struct Nothing {};
  CLI::App& study = add_verb<Nothing>(
      program, "study", "Look inside a model",
      [](CLI::App& verb, Nothing&) {
        verb.require_subcommand(1);
        verb.footer(
            "What a model computes on its way, by the names that TransformerLens uses; "
            "docs/study.md has them all.\n"
            "\n"
            "Examples:\n"
            "  lapidary study layers -f text.txt\n"
            "  lapidary study attention -f text.txt\n"
            "  lapidary study diff ~/models/gemma-3-1b-pt ~/models/gemma-3-1b-it\n"
            "  lapidary study memory\n"
            "  lapidary study capacity -o capacity\n"
            "  lapidary study capacity-text -f text.txt\n"
            "  lapidary study activations -p \"The capital of France is\" -o acts.safetensors");
      },
      [](const Nothing&) { return kOk; });
  add_study_layers(program, study);
  add_study_attention(program, study);
  add_study_diff(program, study);
  add_study_activations(program, study);
  add_study_memory(program, study);
  add_study_architecture(program, study);
  add_study_capacity(program, study);
  add_study_capacity_text(program, study);
  add_study_capacity_layers(program, study);
  add_study_memorization(program, study);
}

}  // namespace lapidary::cli
