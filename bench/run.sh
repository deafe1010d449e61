#!/usr/bin/env bash
# Speed and memory of a gemma-3-1b shape at 4 bits, and of the tokenizer, on this machine.
#   bench/run.sh BUILD_DIR [REPEATS]
# Prints the CPU, then a line per run and the medians. The model is random, so that no weights need
# to be fetched; speed does not depend on their values.
set -euo pipefail
build=${1:?usage: bench/run.sh BUILD_DIR [REPEATS]}
repeats=${2:-5}
lapidary=$build/bin/lapidary
model=$build/bench/gemma-3-1b-4bit

sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1
"$lapidary" version
[ -f "$model/model.safetensors" ] || "$lapidary" synth --preset gemma-3-1b --bits 4 --group-size 64 -o "$model"
cat "$model"/*.safetensors >/dev/null  # into the page cache

prompt=$(seq -s, 100 611)  # 512 ids
for _ in $(seq "$repeats"); do
  "$lapidary" generate -m "$model" --ids "2,$prompt" -n 64 --temp 0 --ignore-eos --json -q |
    python3 -c '
import json, sys
r = json.load(sys.stdin)
t = r["timings"]
print(t["load_s"], t["prefill_tokens_per_second"], t["decode_tokens_per_second"], t["ttft_s"], r["peak_rss_bytes"])'
done | python3 -c '
import statistics, sys
rows = [[float(x) for x in line.split()] for line in sys.stdin]
names = ["load s", "prefill tok/s", "decode tok/s", "first token s", "peak MiB"]
rows = [r[:4] + [r[4] / 2**20] for r in rows]
print("  ".join(f"{n:>14}" for n in names))
for r in rows:
    print("  ".join(f"{x:14.3f}" for x in r))
print("  ".join(f"{statistics.median(c):14.3f}" for c in zip(*rows)), " median")'

# The tokenizer, on this repository's own prose and code.
text=$build/bench/text.txt
cat README.md docs/*.md src/*/*.cc src/*/*.h tests/*/*.cc | sed 's/▁/_/g' >"$text"  # U+2581 decodes as a space
for name in gemma2 gemma3; do
  [ -f "$build/tokenizers/$name/tokenizer.json" ] || continue
  echo "tokenizer of $name, $(wc -c <"$text") bytes"
  "$build/bin/tokenizer_bench" "$build/tokenizers/$name" "$text" "$repeats"
done
