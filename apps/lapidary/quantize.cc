// lapidary quantize: fewer bits where a text says that they hurt least.
#include "lapidary/quantize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/eval.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/system.h"
#include "bench_options.h"
#include "eval_options.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::string input;
  std::string output;
  std::string method = "awq";
  std::string data;
  std::optional<int> bits;
  std::optional<double> budget;
  QuantizeOptions quantize;
  bool no_check = false;
  // Of --report.
  bool report = false;
  FormatReportOptions formats;
  ModelOptions model;
  TextOptions text;
  WindowOptions windows;
  OutputOptions printed;
};

void setup_report(CLI::App& verb, Options& o) {
  auto* report =
      verb.add_flag("--report", o.report,
                    "Make the model in each of --formats, and print a row for each: bits "
                    "per weight, size, speed, perplexity, KLD from MODEL, top-1");
  report->group("Report");
  for (const char* name : {"--output", "--method", "--bits", "--bits-per-weight"})
    verb.get_option(name)->excludes(report);
  verb.add_option("--formats", o.formats.formats,
                  fmt::format("The rows: rtn-N and awq-N for N bits, or of a budget; {} ({})",
                              fmt::join(gguf_types(), ", "), fmt::join(o.formats.formats, ",")))
      ->type_name("A,B..")
      ->delimiter(',')
      ->group("Report");
  verb.add_option("--keep", o.formats.keep, "Leave the models in this folder (default: leave none)")
      ->type_name("DIR")
      ->group("Report");
  add_output(verb, o.printed, "--report-as");
  add_text(verb, o.text, true);
  add_windows(verb, o.windows);
  add_arithmetic(verb, o.model);
  verb.get_option("--compute")->envname("");  // which would be refused where nothing is compared
  for (const char* name :
       {"--formats", "--keep", "--report-as", "--html", "--prompt", "--file", "--ids", "--no-bos",
        "--context", "--stride", "--compute", "--kv-type", "--no-memory-check"})
    verb.get_option(name)->needs(report);
}

void setup(CLI::App& verb, Options& o) {
  verb.add_option("MODEL", o.input, "The dense model: a folder, or a name of the hub")
      ->type_name("MODEL")
      ->required();
  verb.add_option("-o,--output", o.output, "The folder to write; needed unless --report")
      ->type_name("DIR")
      ->group("Output");
  verb.add_flag("--force", o.quantize.overwrite, "Replace the model that is there")
      ->group("Output");
  verb.add_flag("--no-check", o.no_check, "Do not compare the result with the source")
      ->group("Output");
  choices(verb.add_option("--method", o.method,
                          "Fit scales to the activations of a text, or round to nearest (awq)")
              ->group("Format"),
          {"awq", "rtn"});
  verb.add_option("--bits", o.bits, "Bits of a code: 2, 3, 4, 5, 6 or 8 (4)")
      ->type_name("N")
      ->group("Format");
  verb.add_option("--group-size", o.quantize.group_size,
                  "Weights that share a scale: 32, 64 or 128 (64)")
      ->type_name("N")
      ->group("Format");
  verb.add_option("--bits-per-weight", o.budget,
                  "A budget, scales and everything else counted: each matrix gets the bits that "
                  "it needs most")
      ->type_name("X")
      ->group("Format");
  verb.add_option("--data", o.data, "The text to calibrate on (default: a built-in one)")
      ->type_name("FILE")
      ->group("Calibration");
  verb.add_option("--calibration-tokens", o.quantize.calibration_tokens,
                  "How much of it, at most (4096)")
      ->type_name("N")
      ->group("Calibration");
  verb.add_option("--seed", o.quantize.seed, "Chooses which part of a longer text (0)")
      ->type_name("N")
      ->group("Calibration");
  setup_report(verb, o);
  add_threads(verb, o.quantize.threads, "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "The result is what lapidary convert --bits and mlx_lm write: any program that reads those "
      "reads it. It ends with the same check. A text like those the model will be used on makes "
      "the best scales. docs/quality.md has the method and what it is worth.\n"
      "\n"
      "--report calibrates on --data and compares on -p, -f or --ids, else on a built-in text: "
      "give "
      "both, or some of what is compared was fitted to. One model is on the disk at a time, in "
      "$TMPDIR or /tmp, unless --keep.\n"
      "\n"
      "Examples:\n"
      "  lapidary quantize ~/models/gemma-3-1b-it -o 1b-4bit\n"
      "  lapidary quantize ~/models/gemma-3-1b-it -o 1b-3bit --bits 3 --data book.txt\n"
      "  lapidary quantize ~/models/gemma-3-1b-it -o 1b-mixed --bits-per-weight 4.25\n"
      "  lapidary compare ~/models/gemma-3-1b-it 1b-4bit 1b-mixed --table\n"
      "  lapidary quantize ~/models/gemma-3-1b-it --report -f held-out.txt --data fit.txt\n"
      "  lapidary quantize ~/models/gemma-3-1b-it --report --formats awq-4,awq-3.5,q4_0 --json");
}

void read_calibration(const Options& o, QuantizeOptions& options) {
  options.text = o.data.empty() ? std::string(built_in_text()) : read_file(o.data);
}

QuantizeOptions options_of(const Options& o) {
  QuantizeOptions options = o.quantize;
  options.method = o.method == "rtn" ? QuantizeMethod::kRtn : QuantizeMethod::kAwq;
  if (o.bits && o.budget)
    throw Error(ErrorKind::kUsage, "--bits and --bits-per-weight exclude each other",
                "a budget chooses the bits");
  if (o.bits) options.bits = *o.bits;
  if (o.budget) {
    if (!(*o.budget > 0)) fail_usage("--bits-per-weight: {} is not positive", *o.budget);
    options.bits_per_weight = *o.budget;
  }
  options.check = !o.no_check;
  if (options.method == QuantizeMethod::kRtn && !o.budget) {
    if (!o.data.empty())
      throw Error(ErrorKind::kUsage, "--data is not used by --method rtn",
                  "--method awq, or a budget with --bits-per-weight, calibrates");
    return options;
  }
  read_calibration(o, options);
  return options;
}

Json result_json(const Options& o, const QuantizeOptions& options, const Quantization& made,
                 double seconds) {
  Json modules = Json::array();
  for (const QuantizedModule& module : made.modules) {
    Json entry = {{"path", module.path}, {"bits", module.bits}};
    if (made.calibration_tokens > 0) {
      entry["exponent"] = module.exponent;
      entry["error"] = module.error;
      entry["rtn_error"] = module.rtn_error;
      if (options.bits_per_weight > 0) entry["kld"] = module.kld;
    }
    modules.push_back(std::move(entry));
  }
  Json json = {{"input", o.input},
               {"output", o.output},
               {"method", o.method},
               {"group_size", options.group_size},
               {"bits_per_weight", made.conversion.bits_per_weight},
               {"bytes", made.conversion.bytes},
               {"calibration_tokens", made.calibration_tokens},
               {"modules", modules}};
  if (options.bits_per_weight > 0) json["budget"] = options.bits_per_weight;
  if (made.conversion.check) {
    json["check"] = {{"tokens", made.conversion.check->tokens},
                     {"weight_error", made.conversion.check->weight_error},
                     {"kld_mean", made.conversion.check->kld_mean},
                     {"top1_agreement", made.conversion.check->top1_agreement}};
  }
  json["peak_rss_bytes"] = peak_rss_bytes();
  json["seconds"] = seconds;
  return json;
}

void print_result(const Options& o, const QuantizeOptions& options, const Quantization& made,
                  double seconds) {
  const Conversion& c = made.conversion;
  std::string text = fmt::format("{}: {}, {:.3f} bits per weight", o.output, bytes_text(c.bytes),
                                 c.bits_per_weight);
  if (options.bits_per_weight > 0) text += fmt::format(" of {} allowed", options.bits_per_weight);
  note(text + fmt::format(", in {:.1f} s", seconds));
  if (made.calibration_tokens > 0) {
    double error = 0, rtn = 0;
    for (const QuantizedModule& module : made.modules) {
      error += module.error;
      rtn += module.rtn_error;
    }
    const auto count = static_cast<double>(made.modules.size());
    note(
        fmt::format("error of the products {:.3g} %, rounded to nearest {:.3g} % (mean of squares "
                    "over {} matrices, {} calibration tokens)",
                    100 * error / count, 100 * rtn / count, made.modules.size(),
                    count_text(made.calibration_tokens)));
  }
  if (c.check) note("checked: " + agreement_text(*c.check));
}

int run_report(const Options& o) {
  const Subject subject = read_subject(o.text);
  FormatReportOptions options = o.formats;
  options.quantize = o.quantize;
  options.quantize.check = !o.no_check;
  read_calibration(o, options.quantize);
  options.quality = {.engine = engine_options(o.model), .windows = o.windows};
  options.quality.engine.context = o.windows.context;
  options.quality.engine.threads = o.quantize.threads;
  const Interruption interruption;
  return run_table(subject, o.windows, o.verbosity, o.printed,
                   [&](const auto& text_of, const auto& on_row) {
                     ProgressBar bar("measuring", o.verbosity);
                     format_report(model_path(o.input), options, text_of, on_row,
                                   Watch{bar.fn(), interruption.token()});
                   });
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.report) return run_report(o);
  if (o.output.empty())
    throw Error(ErrorKind::kUsage, "--output is required",
                "-o DIR is the folder to write; --report measures without one");
  const QuantizeOptions options = options_of(o);
  const Interruption interruption;
  const Stopwatch clock;
  Quantization made;
  {
    ProgressBar bar("quantising", o.verbosity);
    made = quantize_folder(model_path(o.input), o.output, options,
                           Watch{bar.fn(), interruption.token()});
  }
  if (o.printed.json)
    out_json(result_json(o, options, made, clock.seconds()));
  else if (!o.verbosity.quiet)
    print_result(o, options, made, clock.seconds());
  return kOk;
}

}  // namespace

void add_quantize(Program& program) {
  add_verb<Options>(program, "quantize", "Quantise a model so that its answers change least", setup,
                    run);
}

}  // namespace lapidary::cli
