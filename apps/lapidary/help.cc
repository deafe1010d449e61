// lapidary help
#include <algorithm>

#include "base/fail.h"
#include "command_line.h"
#include "describe.h"
#include "verbs.h"

namespace lapidary::cli {

void add_help(Program& program) {
  struct Options {
    std::vector<std::string> words;
    bool man = false;
  };
  add_verb<Options>(
      program, "help", "Print help, of the program or of a verb",
      [](CLI::App& verb, Options& o) {
        verb.add_option("verb", o.words, "The verb to explain; both words of one that has two")
            ->type_name("VERB")
            ->expected(0, 2);
        verb.add_flag("--man", o.man, "Print the manual page as roff")->group("");
      },
      [&program](const Options& o) {
        if (o.man) {
          out(man_page(program.app));
          return kOk;
        }
        const CLI::App* subject = &program.app;
        for (const std::string& word : o.words) {
          const auto verbs = verbs_of(*subject);
          const auto found = std::find_if(verbs.begin(), verbs.end(), [&](const CLI::App* verb) {
            return verb->get_name() == word;
          });
          if (found == verbs.end())
            throw Error(ErrorKind::kUsage, "verb '" + joined(o.words, " ") + "' does not exist",
                        "lapidary help lists them");
          subject = *found;
        }
        out(subject->help());
        return kOk;
      });
}

}  // namespace lapidary::cli
