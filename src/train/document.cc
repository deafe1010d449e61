#include "train/document.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/fail.h"

namespace lapidary {

namespace {

Document from_text(const std::string& text, const Tokenizer& tokenizer) {
  const std::vector<Token> ids = tokenizer.encode(text);
  Document document;
  if (ids.empty() || ids.front() != tokenizer.bos()) document.append({tokenizer.bos()}, false);
  document.append(ids, true);
  document.counted.front() = 0;
  if (document.tokens.back() != tokenizer.eos()) document.append({tokenizer.eos()}, true);
  return document;
}

Document from_completion(const CompletionRecord& record, const Tokenizer& tokenizer,
                         bool prompt_loss) {
  Document document;
  document.append({tokenizer.bos()}, false);
  document.append(tokenizer.encode(record.prompt), prompt_loss);
  document.append(tokenizer.encode(record.completion), true);
  if (document.tokens.back() != tokenizer.eos()) document.append({tokenizer.eos()}, true);
  return document;
}

Document from_chat(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                   bool prompt_loss, const std::string& where) {
  try {
    Transcript transcript = encode_transcript(tokenizer, messages);
    Document document{std::move(transcript.ids), {}};
    for (const bool from_model : transcript.from_model)
      document.counted.push_back(prompt_loss || from_model ? 1 : 0);
    document.counted.front() = 0;
    return document;
  } catch (const Error& e) {
    fail("{}: {}", where, e.what());
  }
}

Document make_any_document(const Record& record, const Tokenizer& tokenizer,
                           const DocumentOptions& options, const std::string& where) {
  if (const auto* text = std::get_if<TextRecord>(&record)) return from_text(text->text, tokenizer);
  if (const auto* chat = std::get_if<ChatRecord>(&record))
    return from_chat(chat->messages, tokenizer, options.prompt_loss, where);
  const auto& completion = std::get<CompletionRecord>(record);
  if (!options.chat_completion) return from_completion(completion, tokenizer, options.prompt_loss);
  const ChatMessage messages[] = {{"user", completion.prompt}, {"model", completion.completion}};
  return from_chat(messages, tokenizer, options.prompt_loss, where);
}

}  // namespace

void Document::append(const std::vector<Token>& ids, bool counts) {
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  counted.resize(tokens.size(), counts ? 1 : 0);
}

void refuse_reserved(Token token, const Tokenizer& tokenizer, const std::string& where) {
  throw Error(ErrorKind::kInput,
              fmt::format("{}: has the token {} ('{}'), which stands for masked ones", where, token,
                          tokenizer.piece(token)),
              "--mask-token names one that the data does not have");
}

Document make_document(const Record& record, const Tokenizer& tokenizer,
                       const DocumentOptions& options, const std::string& where) {
  Document document = make_any_document(record, tokenizer, options, where);
  if (options.reserved && std::ranges::count(document.tokens, *options.reserved) > 0)
    refuse_reserved(*options.reserved, tokenizer, where);
  return document;
}

}  // namespace lapidary
