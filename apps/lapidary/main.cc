// The program: verbs, errors, exit codes.
#include <algorithm>
#include <cstdio>
#include <new>

#include "lapidary/error.h"

#include "command_line.h"
#include "describe.h"
#include "settings.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

constexpr void (*kVerbs[])(Program&) = {
    add_generate,   add_chat,        add_score, add_perplexity, add_compare,  add_tokenize,
    add_detokenize, add_show,        add_synth, add_convert,    add_quantize, add_adapter,
    add_fuse,       add_blend,       add_train, add_isolate,    add_study,    add_bench,
    add_tune,       add_experiments, add_pull,  add_list,       add_rm,       add_cache,
    add_version,    add_completion,  add_help};

int fail_with(int code, std::string message, const std::string& hint) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "lapidary: error: %s\n", message.c_str());
  if (!hint.empty()) std::fprintf(stderr, "hint: %s\n", hint.c_str());
  return code;
}

std::string see_help(const CLI::App& app) {
  const std::string verb = full_name(chosen_verb(app));
  return "see lapidary " + (verb.empty() ? "" : verb + " ") + "--help";
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return kBadUsage;
    case ErrorKind::kInterrupted:
      return kInterrupted;
    case ErrorKind::kInput:
    case ErrorKind::kResource:
      break;
  }
  return kFailed;
}

// Printing help may fail too, so it is not done where the wish for it is caught.
int parse_and_run(Program& program, int argc, char** argv) {
  CLI::App& app = program.app;
  bool help = false;
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    help = true;
  }
  if (help) {
    out(chosen_verb(app).help());
    return kOk;
  }
  if (app.get_subcommands().empty())
    return fail_with(kBadUsage, "no verb given", "see lapidary --help");
  take_settings(chosen_verb(app));
  return program.run();
}

int run(Program& program, int argc, char** argv) {
  CLI::App& app = program.app;
  try {
    return parse_and_run(program, argc, argv);
  } catch (const CLI::ExtrasError& e) {
    const bool flag = argv[1][0] == '-';
    if (!app.get_subcommands().empty() || flag)
      return fail_with(kBadUsage, e.what(), see_help(app));
    return fail_with(kBadUsage, std::string("verb '") + argv[1] + "' does not exist",
                     see_help(app));
  } catch (const CLI::ParseError& e) {
    return fail_with(kBadUsage, e.what(), see_help(app));
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInterrupted) return kInterrupted;
    const bool bare_usage = e.kind() == ErrorKind::kUsage && e.hint().empty();
    return fail_with(exit_code(e.kind()), e.what(), bare_usage ? see_help(app) : e.hint());
  } catch (const BrokenPipe&) {
    return kFailed;  // whoever read it has had enough
  } catch (const std::bad_alloc&) {
    return fail_with(kFailed, "out of memory", "use a smaller context or model");
  } catch (const std::exception& e) {
    return fail_with(kFailed, e.what(), "");
  }
}

}  // namespace

}  // namespace lapidary::cli

int main(int argc, char** argv) {
  using namespace lapidary::cli;
  install_signal_handlers();
  Program program;
  program.app.formatter(help_formatter());
  program.app.set_help_flag("-h,--help", "Print this help");
  program.app.require_subcommand(0, 1);  // so that the name of a verb can be an argument
  for (const auto add : kVerbs) add(program);
  program.app.footer(
      "lapidary help VERB explains a verb. Without -m, the built-in model is used.\n"
      "\n"
      "Examples:\n"
      "  lapidary generate -p \"ROMEO:\" -n 80\n"
      "  lapidary chat -m ~/models/gemma-3-1b-it");
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    static char version[] = "version";
    argv[1] = version;
  }
  // llama.cpp's spelling, which the parser would take for -t with the value b.
  char threads_batch[] = "--threads-batch";
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) == "-tb") argv[i] = threads_batch;
  return run(program, argc, argv);
}
