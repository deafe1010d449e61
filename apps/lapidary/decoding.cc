#include "decoding.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/log.h"

#include "base/fail.h"

namespace lapidary::cli {

namespace {

constexpr const char* kGroup = "Decoding";

// A token that begins, ends or fills texts means something else to the model than one to come.
void check_mask(Token id, const Engine& engine) {
  const auto refuse = [&](std::string_view what) {
    fail_usage("--mask-token: token {} {}, expected one that texts do not have", id, what);
  };
  const std::vector<Token> ends = end_tokens(engine);
  if (std::ranges::find(ends, id) != ends.end()) refuse("ends an answer");
  if (!engine.has_tokenizer()) return;
  if (id == engine.tokenizer().bos()) refuse("begins every text");
  if (id == engine.tokenizer().eos()) refuse("ends a text");
  if (id == engine.tokenizer().find("<pad>")) refuse("is padding");
}

Token mask_named(const std::string& text, const Engine& engine) {
  Token id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error == std::errc() && end == text.data() + text.size()) return id;
  if (engine.has_tokenizer())
    if (const auto found = engine.tokenizer().find(text)) return *found;
  fail("--mask-token: '{}' is neither an id nor a piece of the vocabulary of {}", text,
       engine.folder().string());
}

std::string piece_text(const Engine& engine, Token token) {
  if (!engine.has_tokenizer()) return fmt::format("{} ", token);
  std::string text = engine.tokenizer().decode({&token, 1}, true);
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 3)
    text.replace(at, 1, "\u23ce");
  return text;
}

}  // namespace

void add_decoding(CLI::App& verb, DecodingFlags& f) {
  choices(verb.add_option("--decode", f.mode,
                          "plain: a token for each pass of the model; ngram: guess what followed "
                          "the same words before; draft: let a smaller model guess; block-draft: "
                          "guess by blocks, with a model trained for it; set-block: take what "
                          "blocks say (plain). Guesses change no token"),
          {"plain", "ngram", "draft", "set-block", "block-draft"})
      ->group(kGroup);
  verb.add_option("--block", f.block,
                  "Tokens of a block (as large as the model has learnt, else 16)")
      ->type_name("N")
      ->group(kGroup);
  verb.add_option("--gamma", f.gamma,
                  "Nats of entropy that the tokens decided in one pass may have together, but for "
                  "the least sure of them; inf: all at once (0.35)")
      ->type_name("NATS")
      ->group(kGroup);
  add_decoding_details(verb, f);
}

void add_decoding_details(CLI::App& verb, DecodingFlags& f) {
  verb.add_option("--draft-max", f.draft_max, "Tokens guessed at once (8)")
      ->type_name("N")
      ->group(kGroup);
  verb.add_option("--ngram-max", f.ngram_max, "Longest run of tokens looked up (3)")
      ->type_name("N")
      ->group(kGroup);
  verb.add_option("--model-draft", f.draft_model, "The smaller model that guesses")
      ->type_name("MODEL")
      ->group(kGroup);
  choices(verb.add_option("--order", f.order,
                          "What the surest tokens of a block are known by (entropy)"),
          {"entropy", "confidence", "margin"})
      ->group(kGroup);
  verb.add_option("--mask-token", f.mask,
                  "What stands for a token to come: an id or a piece (default: the model's)")
      ->type_name("TOKEN")
      ->group(kGroup);
}

void check(const DecodingFlags& f) {
  const bool draft = f.mode == "draft";
  if (draft && f.draft_model.empty())
    fail_usage("--decode draft: --model-draft names the model that guesses");
  const std::string ways[] = {f.mode};
  check_used(f, "--decode", ways);
}

void check_used(const DecodingFlags& f, const std::string& choice,
                std::span<const std::string> ways) {
  const auto used = [&](const char* flag, bool given, std::vector<std::string> by) {
    if (given && std::ranges::find_first_of(ways, by) == ways.end())
      fail_usage("{}: only with {} {}", flag, choice, fmt::join(by, " or "));
  };
  used("--model-draft", !f.draft_model.empty(), {"draft"});
  used("--draft-max", f.draft_max.has_value(), {"ngram", "draft"});
  used("--ngram-max", f.ngram_max.has_value(), {"ngram"});
  used("--block", f.block.has_value(), {"set-block", "block-draft"});
  used("--gamma", f.gamma.has_value(), {"set-block"});
  used("--order", f.order.has_value(), {"set-block"});
  used("--mask-token", f.mask.has_value(), {"set-block", "block-draft"});
}

void warn_of_block(int64_t block, const Engine& engine) {
  const auto learnt = trained_block(engine);
  if (learnt && block > *learnt)
    log(LogLevel::kWarning,
        fmt::format("{}: has learnt blocks of up to {} tokens; what it says of the places beyond, "
                    "in blocks of {}, is not to be relied on",
                    engine.folder().string(), *learnt, block));
}

DecodeOptions resolve(const DecodingFlags& f, const Engine& engine, const ModelOptions& model,
                      const Verbosity& verbosity) {
  DecodeOptions options;
  options.mode = decode_mode_named(f.mode);
  options.draft_max = f.draft_max.value_or(options.draft_max);
  options.ngram_max = f.ngram_max.value_or(options.ngram_max);
  SetBlockOptions& blocks = options.set_block;
  blocks.block = f.block.value_or(trained_block(engine).value_or(blocks.block));
  blocks.gamma = f.gamma.value_or(blocks.gamma);
  if (f.order) blocks.order = reveal_order_named(*f.order);
  if (f.mask) {
    blocks.mask = mask_named(*f.mask, engine);
    check_mask(*blocks.mask, engine);
  }
  if (options.mode == DecodeMode::kDraft) {
    ModelOptions draft = model;
    draft.model = f.draft_model;
    draft.adapters.clear();
    options.draft = load_engine(draft, verbosity);
  }
  check_decode_options(options, engine);
  const bool guesses = options.mode == DecodeMode::kBlockDraft;
  if (!guesses && options.mode != DecodeMode::kSetBlock) return options;
  if (f.block) warn_of_block(*f.block, engine);
  if (!trained_for_blocks(engine))
    log(LogLevel::kWarning,
        fmt::format(
            "{}: nothing says that it was trained to fill in blocks; without that {} "
            "(lapidary train --method sbd)",
            engine.folder().string(),
            guesses ? "hardly a guess holds" : "the text suffers, or each pass decides one token"));
  return options;
}

std::string block_text(const BlockView& view, const Engine& engine) {
  const bool colour = stderr_is_terminal();
  std::string line = fmt::format("{:4} ", view.pass);
  for (size_t i = 0; i < view.tokens.size(); ++i) {
    const int64_t position = view.position + static_cast<int64_t>(i);
    const bool fresh =
        std::ranges::find(view.fresh, position, &Reveal::position) != view.fresh.end();
    if (view.tokens[i] == view.mask)
      line += "\u2591\u2591";
    else if (!fresh)
      line += piece_text(engine, view.tokens[i]);
    else
      line += colour ? fmt::format("\033[1;32m{}\033[0m", piece_text(engine, view.tokens[i]))
                     : fmt::format("[{}]", piece_text(engine, view.tokens[i]));
  }
  return line;
}

void add_passes(Json& json, const Generation& made, DecodeMode mode) {
  json["forward_passes"] = made.forward_passes;
  if (mode == DecodeMode::kPlain) return;
  json["passes_by_tokens"] = made.passes_by_tokens;
  if (mode != DecodeMode::kSetBlock) return;
  Json entropies = Json::array(), passes = Json::array();
  for (const Reveal& r : made.reveals) {
    entropies.push_back(r.entropy);
    passes.push_back(r.pass);
  }
  json["reveals"] = {{"entropy", entropies}, {"pass", passes}};
}

}  // namespace lapidary::cli
