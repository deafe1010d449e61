#!/usr/bin/env bash
# Compares lapidary with transformers, PEFT, mlx-lm and huggingface_hub (tools/interop.py), in the environment of
# tools/interop_env.sh, and with llama.cpp (tools/check_gguf.mjs), of tools/llama_modules.sh. Fails when either does.
#   tools/interop.sh BUILD_DIR [interop.py's options]
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:?usage: tools/interop.sh BUILD_DIR [options of interop.py]}
shift
env=$("$tools/interop_env.sh")
llama=$("$tools/llama_modules.sh")

failed=0
"$env/bin/python" "$tools/interop.py" --lapidary "$build/bin/lapidary" "$@" || failed=1
node "$tools/check_gguf.mjs" --modules "$llama" --lapidary "$build/bin/lapidary" \
  --tokenizers "$build/tokenizers" || failed=1
exit $failed
