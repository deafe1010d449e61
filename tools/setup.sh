#!/bin/sh
# Installs the Debian packages that lapidary is built and tested with, where they are missing.
#   tools/setup.sh build | test | check | interop
# Each list contains the ones before it. Runs apt-get as root, or through sudo.
set -eu

build="g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libsimdjson-dev libcli11-dev libedit-dev libncurses-dev libjs-chart.js libcurl4-openssl-dev libssl-dev libeigen3-dev libboost-dev libopenmpi-dev ca-certificates"
test="python3 python3-jsonschema libgtest-dev libsentencepiece-dev libsimde-dev npm g++-aarch64-linux-gnu qemu-user openmpi-bin libcpp-httplib-dev"
check="clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev ccache man-db chromium"
interop="python3-venv"

case "${1:-}" in
  build) wanted=$build ;;
  test) wanted="$build $test" ;;
  check) wanted="$build $test $check" ;;
  interop) wanted="$build $test $interop" ;;
  *) echo "usage: tools/setup.sh build|test|check|interop" >&2; exit 2 ;;
esac

# A tool that is there by another way (node from its own archive, say) need not come from Debian.
missing=""
for package in $wanted; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" && continue
  case $package in
    g++|cmake|npm|python3|ccache) command -v "$package" >/dev/null 2>&1 && continue ;;
    ninja-build) command -v ninja >/dev/null 2>&1 && continue ;;
  esac
  missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  sudo=""
elif command -v sudo >/dev/null 2>&1; then
  sudo="sudo"
else
  echo "setup: these packages are missing and there is neither root nor sudo to install them:$missing" >&2
  exit 1
fi
command -v apt-get >/dev/null 2>&1 || {
  echo "setup: not a Debian system; install what these packages hold:$missing" >&2
  exit 1
}
echo "setup: installing$missing"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
