// lapidary help
#include "base/fail.h"
#include "describe.h"
#include "verbs.h"

namespace lapidary::cli {

void add_help(Program& program) {
  struct Options {
    std::string verb;
    bool man = false;
  };
  add_verb<Options>(
      program, "help", "Print help, of the program or of a verb",
      [](CLI::App& verb, Options& o) {
        verb.add_option("verb", o.verb, "The verb to explain")->type_name("VERB");
        verb.add_flag("--man", o.man, "Print the manual page as roff")->group("");
      },
      [&program](const Options& o) {
        if (o.man) {
          out(man_page(program.app));
          return kOk;
        }
        const CLI::App* subject = o.verb.empty() ? &program.app : nullptr;
        for (const CLI::App* verb :
             program.app.get_subcommands([](const CLI::App*) { return true; }))
          if (verb->get_name() == o.verb) subject = verb;
        if (!subject)
          throw Error(ErrorKind::kUsage, "verb '" + o.verb + "' does not exist",
                      "lapidary help lists them");
        out(subject->help());
        return kOk;
      });
}

}  // namespace lapidary::cli
