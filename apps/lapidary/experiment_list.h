// The experiments that lapidary experiments offers: each is verbs of this program, with arguments.
// A new one is a row of the table in experiment_list.cc, and nothing else.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary::cli {

struct Experiment {
  std::string_view name;      // "layers"; also of its folder
  std::string_view group;     // "Look inside"
  std::string_view question;  // what it answers
  std::string_view time;  // about, with the built-in model; with a 1B one in 4 bits, on two cores
  // A command a line, without "lapidary". Words with $: $MODEL, what -m says; $TEXT, the text to
  // read and learn from; $EXCERPT, its beginning; $CONVERSATIONS, the examples that come along;
  // $OUT, a folder of its own, which is not there yet.
  std::string_view commands;
  std::string_view report;  // the page in $OUT; empty: what is printed is all
};

std::span<const Experiment> experiments();
// nullptr when there is none.
const Experiment* find_experiment(std::string_view name);

struct ExperimentWords {
  std::string model, text, excerpt, conversations, out;
};
// The commands as the words that are given to the program.
std::vector<std::vector<std::string>> commands_of(const Experiment& experiment,
                                                  const ExperimentWords& words);

}  // namespace lapidary::cli
