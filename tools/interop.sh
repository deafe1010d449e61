#!/usr/bin/env bash
# Compares lapidary with transformers and mlx-lm (see tools/interop.py), in the environment of tools/interop_env.sh.
#   tools/interop.sh [interop.py's options; --lapidary build/bin/lapidary unless given]
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
env=$("$tools/interop_env.sh")

case " $* " in
  *" --lapidary"*) ;;
  *) set -- --lapidary build/bin/lapidary "$@" ;;
esac
exec "$env/bin/python" "$tools/interop.py" "$@"
