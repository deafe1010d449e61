#!/usr/bin/env bash
# The same random model through lapidary and through the programs that others would use, in turn.
#   tools/bench_peers.sh BUILD_DIR [PRESET] [options of lapidary bench peers]
# Two tables: 4 bits (MLX's blocks, and Q4_0 for llama.cpp), and bf16. The peers are installed outside the repository,
# where tools/interop_env.sh and tools/llama_modules.sh keep them; what cannot be installed is left out, with a word on stderr. On a CPU, mlx-lm takes seconds for a token of a 4-bit model: it is in
# that table with LAPIDARY_SLOW_PEERS=1 only.
set -euo pipefail
build=${1:?usage: tools/bench_peers.sh BUILD_DIR [PRESET] [options]}
preset=${2:-gemma-3-270m}
shift $(($# < 2 ? $# : 2))
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lapidary=$build/bin/lapidary
models=$build/bench/peers/$preset
threads=$(nproc)

missing() { echo "bench_peers: $1 is left out: $2" >&2; }

env=$("$tools/interop_env.sh") || missing "transformers, mlx-lm" "pip cannot install them"
llama=$("$tools/llama_modules.sh") || missing "llama.cpp" "npm cannot install node-llama-cpp"

[ -f "$models/4bit/model.safetensors" ] ||
  "$lapidary" synth --preset "$preset" --bits 4 --group-size 64 -o "$models/4bit"
[ -f "$models/bf16/model.safetensors" ] || "$lapidary" synth --preset "$preset" --dtype bf16 -o "$models/bf16"
gguf() {
  [ -f "$models/$1.gguf" ] || "$lapidary" convert "$models/bf16" -o "$models/$1.gguf" --to gguf --type "$1" --quiet
}

# add NAME COMMAND: to the peers of the next table, if the program is there
add() { peers+=(--peer "$1=$2"); }
add_llama() {
  [ -n "$llama" ] || return 0
  if gguf "$1"; then
    add "llama.cpp $1" "node $tools/peers/llama_cpp.mjs $llama $models/$1.gguf $threads"
  else
    missing "llama.cpp" "this lapidary does not write GGUF"
  fi
}
has() { [ -n "$env" ] && "$env/bin/python" -c "import $1" 2>/dev/null; }

peers=()
if [ -n "${LAPIDARY_SLOW_PEERS:-}" ] && has mlx_lm; then
  add "mlx-lm" "$env/bin/python $tools/peers/mlx_peer.py $models/4bit"
fi
add_llama q4_0
"$lapidary" bench peers -m "$models/4bit" -t "$threads" "${peers[@]}" "$@"
echo
peers=()
if has mlx_lm; then add "mlx-lm" "$env/bin/python $tools/peers/mlx_peer.py $models/bf16"; fi
if has transformers; then
  add "transformers" "$env/bin/python $tools/peers/transformers_peer.py $models/bf16 $threads"
fi
add_llama bf16
"$lapidary" bench peers -m "$models/bf16" -t "$threads" "${peers[@]}" "$@"
