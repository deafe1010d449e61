#!/usr/bin/env bash
# Prints the folder that has node-llama-cpp, llama.cpp's prebuilt package for node, in its node_modules.
#   modules=$(tools/llama_modules.sh)
# It is kept in $LAPIDARY_LLAMA (~/.cache/lapidary/llama).
set -euo pipefail

folder=${LAPIDARY_LLAMA:-$HOME/.cache/lapidary/llama}
if [ ! -d "$folder/node_modules/node-llama-cpp" ]; then
  mkdir -p "$folder"
  npm install --silent --prefix "$folder" node-llama-cpp@3 >&2
fi
echo "$folder"
