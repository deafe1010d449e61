#!/usr/bin/env bash
# Prints the folder of a Python environment with what lapidary is compared with (tools/interop-requirements.txt).
#   env=$(tools/interop_env.sh) && "$env/bin/python" ...
# It is kept in $LAPIDARY_INTEROP_ENV (~/.cache/lapidary/interop) and made again when the requirements change.
set -euo pipefail

requirements=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/interop-requirements.txt
env=${LAPIDARY_INTEROP_ENV:-$HOME/.cache/lapidary/interop}

if ! cmp -s "$requirements" "$env/installed.txt"; then
  python3 -m venv "$env" >&2
  "$env/bin/pip" install --quiet --requirement "$requirements" >&2
  cp "$requirements" "$env/installed.txt"
fi
echo "$env"
