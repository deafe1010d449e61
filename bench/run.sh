#!/usr/bin/env bash
# Speed of a gemma-3-1b shape at 4 bits, and of the tokenizer, on this machine.
#   bench/run.sh BUILD_DIR [REPEATS]
# The model is random, so that no weights need to be fetched; speed does not depend on their values.
set -euo pipefail
build=${1:?usage: bench/run.sh BUILD_DIR [REPEATS]}
repeats=${2:-5}
lapidary=$build/bin/lapidary
model=$build/bench/gemma-3-1b-4bit

[ -f "$model/model.safetensors" ] || "$lapidary" synth --preset gemma-3-1b --bits 4 --group-size 64 -o "$model"
cat "$model"/*.safetensors >/dev/null  # into the page cache

"$lapidary" bench -m "$model" -p 512 -n 64 -d 0,4096 -r "$repeats"

# The tokenizer, on this repository's own prose and code.
text=$build/bench/text.txt
cat README.md docs/*.md src/*/*.cc src/*/*.h tests/*/*.cc | sed 's/▁/_/g' >"$text"  # U+2581 decodes as a space
for name in gemma2 gemma3; do
  [ -f "$build/tokenizers/$name/tokenizer.json" ] || continue
  echo "tokenizer of $name, $(wc -c <"$text") bytes"
  "$build/bin/tokenizer_bench" "$build/tokenizers/$name" "$text" "$repeats"
done
