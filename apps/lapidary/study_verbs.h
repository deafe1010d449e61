// The second words of lapidary study, and what they share.
#pragma once

#include <string>

#include "common.h"
#include "report/report.h"

namespace lapidary::cli {

void add_study_activations(Program& program, CLI::App& study);
void add_study_architecture(Program& program, CLI::App& study);
void add_study_attention(Program& program, CLI::App& study);
void add_study_capacity(Program& program, CLI::App& study);
void add_study_capacity_layers(Program& program, CLI::App& study);
void add_study_capacity_text(Program& program, CLI::App& study);
void add_study_diff(Program& program, CLI::App& study);
void add_study_layers(Program& program, CLI::App& study);
void add_study_memorization(Program& program, CLI::App& study);
void add_study_memory(Program& program, CLI::App& study);

// Where a study goes: a new folder with a page and its figures, which --json is without unless -o
// names one, or stdout.
struct StudyOutput {
  std::string folder;
  bool force = false;
  bool json = false;
  const CLI::Option* named = nullptr;  // -o
  bool writes() const { return !json || named->count() > 0; }
};
// What a study was of: the model by name and fingerprint, the ids by a hash.
Json subject_json(const Engine& engine, const std::vector<Token>& tokens);
void add_study_output(CLI::App& verb, StudyOutput& output);
// Before the work: throws Error{kUsage} for a folder that is there already with something in it,
// and what writing it would throw for a place that takes no folder.
void check(const StudyOutput& output);
// Writes report.html and the figures under `name`, and prints the summary, or the figures.
void write_study(const StudyOutput& output, const char* name, const Json& figures,
                 const Report& report, const std::string& summary);

}  // namespace lapidary::cli
