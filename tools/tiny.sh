#!/usr/bin/env bash
# Trains the built-in model again, with lapidary: models/tiny/model.safetensors, from random weights. The tokenizer and
# the configuration stay. Goes on where it was when it was interrupted.
#   tools/tiny.sh BUILD_DIR CORPUS   CORPUS is tiny Shakespeare, or another play as text
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:?usage: tools/tiny.sh BUILD_DIR CORPUS}
corpus=${2:?usage: tools/tiny.sh BUILD_DIR CORPUS}
model=$tools/../models/tiny
work=$build/tiny
lapidary=$build/bin/lapidary

python3 "$tools/tiny_data.py" --corpus "$corpus" --out "$work/data"
if [ ! -e "$work/start/config.json" ]; then
  "$lapidary" synth --preset gemma-3-270m --layers 7 --hidden 256 --ffn 640 --heads 4 --kv-heads 2 --head-dim 64 \
    --vocab 4096 --window 64 --dtype bf16 --seed 1 -o "$work/start"
  cp "$model"/*.json "$model/tokenizer.model" "$work/start"
fi
resume=()
[ ! -e "$work/run/config.json" ] || resume=(--resume)
"$lapidary" train --method full -m "$work/start" --data "$work/data" -o "$work/run" --iters 650 --sequence-length 512 \
  --batch-size 4 --micro-batch 4 --optimizer muon --lr 3e-3 --beta2 0.98 --weight-decay 0.1 --warmup 33 \
  --min-lr-ratio 0.05 --eval-every 130 --save-every 50 "${resume[@]}"
cp "$work/run/model/model.safetensors" "$model/model.safetensors"
"$lapidary" perplexity -m "$model" -f "$work/data/valid.txt" -c 512 --stride 511
