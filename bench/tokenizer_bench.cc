// Time to load a tokenizer and to encode and decode text with it, on one thread.
//   tokenizer_bench TOKENIZER_FOLDER TEXT_FILE [REPEATS]
// Prints a line per repeat and the medians. The first load of a file reads it from disk.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lapidary/error.h"
#include "lapidary/tokenizer.h"

#include "base/clock.h"

namespace {

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

int run(const char* folder, const char* path, int repeats) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty())
    throw lapidary::Error(lapidary::ErrorKind::kInput,
                          fmt::format("{}: empty or unreadable", path));
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::vector<double> load, encode, decode;
  for (int i = 0; i < repeats; ++i) {
    const lapidary::Stopwatch loading;
    const auto tokenizer = lapidary::Tokenizer::load(folder);
    load.push_back(loading.seconds());
    const lapidary::Stopwatch encoding;
    const auto ids = tokenizer.encode(text, lapidary::ControlText::kLiteral);
    encode.push_back(megabytes / encoding.seconds());
    const lapidary::Stopwatch decoding;
    const std::string back = tokenizer.decode(ids);
    decode.push_back(megabytes / decoding.seconds());
    if (back != text)
      fmt::print("the text did not come back as it was (is there a U+2581 in it?)\n");
    fmt::print("load {:.3f} s  encode {:.1f} MB/s  decode {:.1f} MB/s\n", load.back(),
               encode.back(), decode.back());
  }
  fmt::print("load {:.3f} s  encode {:.1f} MB/s  decode {:.1f} MB/s  median\n", median(load),
             median(encode), median(decode));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    fmt::print(stderr, "usage: tokenizer_bench TOKENIZER_FOLDER TEXT_FILE [REPEATS]\n");
    return 2;
  }
  try {
    return run(argv[1], argv[2], argc == 4 ? std::max(1, std::atoi(argv[3])) : 5);
  } catch (const lapidary::Error& error) {
    fmt::print(stderr, "tokenizer_bench: {}\n", error.what());
    return 1;
  }
}
