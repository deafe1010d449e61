#!/usr/bin/env bash
# Compares lapidary with transformers and mlx-lm (see tools/interop.py), in a Python environment made for that.
#   tools/interop.sh [interop.py's options; --lapidary build/bin/lapidary unless given]
# The environment is kept in $LAPIDARY_INTEROP_ENV (~/.cache/lapidary/interop) and made again when the requirements change.
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
env=${LAPIDARY_INTEROP_ENV:-$HOME/.cache/lapidary/interop}
requirements=$tools/interop-requirements.txt

if ! cmp -s "$requirements" "$env/installed.txt"; then
  python3 -m venv "$env"
  "$env/bin/pip" install --quiet --requirement "$requirements"
  cp "$requirements" "$env/installed.txt"
fi

case " $* " in
  *" --lapidary"*) ;;
  *) set -- --lapidary build/bin/lapidary "$@" ;;
esac
exec "$env/bin/python" "$tools/interop.py" "$@"
