// Models that llama.cpp's llama-gguf-split has cut into several GGUF files.
//
// The files are NAME-00001-of-00003.gguf and so on. The first has the metadata; each has some of
// the tensors, the first maybe none, and the keys split.no, split.count and split.tensors.count.
#pragma once

#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "io/gguf.h"

namespace lapidary {

// Where `contents`, those of files[0], say that there are more parts: maps them after it and adds
// their tensors. Throws Error{kInput} naming the file for a part that is not the first, one that is
// missing or is another than its name says, and tensors that are missing or in two parts.
void add_split_parts(std::vector<MappedFile>& files, GgufContents& contents);

}  // namespace lapidary
