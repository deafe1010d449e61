// lapidary version
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kernels/kernels.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  bool json = false;
};

int run(const Options& o) {
  std::vector<std::string> isas;
  for (const Kernels* kernels : supported_kernels()) isas.emplace_back(kernels->isa);
  const std::string chosen(best_kernels().isa);
  const std::string compiler = fmt::format(
#ifdef __clang__
      "clang {}.{}", __clang_major__, __clang_minor__
#else
      "gcc {}.{}", __GNUC__, __GNUC_MINOR__
#endif
  );
  if (o.json)
    out_json(
        {{"version", LAPIDARY_VERSION}, {"compiler", compiler}, {"isa", chosen}, {"isas", isas}});
  else
    out(fmt::format("lapidary {} ({}); kernels: {}, using {}\n", LAPIDARY_VERSION, compiler,
                    fmt::join(isas, ", "), chosen));
  return kOk;
}

}  // namespace

void add_version(Program& program) {
  add_verb<Options>(
      program, "version", "Print version, compiler and kernels",
      [](CLI::App& verb, Options& o) {
        verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
      },
      run);
}

}  // namespace lapidary::cli
