// The vocabulary of a GGUF file, as llama.cpp reads it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lapidary/config.h"
#include "lapidary/tokenizer.h"

#include "io/gguf.h"

namespace lapidary {

// The keys tokenizer.ggml.* for the tokenizer of `folder` and an embedding of `vocab_size` rows:
// llama.cpp wants as many tokens. Where the tokenizer has more, the last are left out; where it has
// fewer, unused ones follow. `pad` and the others are those of the pieces by name; the chat
// template is that of the folder, if it has one.
GgufMetadata gguf_vocabulary(const std::filesystem::path& folder, int vocab_size);

// For a folder without a tokenizer: the same keys with made-up tokens, Gemma's control tokens at
// their usual ids, then the bytes, then "[260]" and so on. The format knows of files without a
// vocabulary, but programs that use llama.cpp abort on them. Throws Error{kInput} naming `where`
// and the field when `vocab_size` does not have room for the bytes.
GgufMetadata gguf_placeholder_vocabulary(int vocab_size, const std::string& where);

// And back: the tokenizer of a file's keys; none where there are no such keys, or a placeholder
// made by the above. Throws Error{kInput} naming `where` and the key or token: another kind of
// tokenizer, lists that are missing or of other lengths, <bos> at another id, spaces put before
// texts, and what Tokenizer::from_pieces throws.
std::optional<Tokenizer> read_gguf_vocabulary(const GgufContents& contents,
                                              const std::string& where);

// The same as the contents of a tokenizer.model; the tokenizer's ids and types are those of the
// file.
std::optional<std::string> sentencepiece_of_gguf(const GgufContents& contents,
                                                 const std::string& where);

}  // namespace lapidary
