#!/usr/bin/env bash
# Builds the test server testing/vaultd into the folder $1, unless it is there for these sources and this toolchain, and
# prints its path. The first build takes one to two minutes.
set -euo pipefail
cd "$(dirname "$0")/../testing/vaultd"
cache=${1:-${CREDRESOLVE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credresolve-test}}
key=$( { go version; find . -type f | LC_ALL=C sort | xargs sha256sum; } | sha256sum | cut -c1-16)
bin=$cache/vaultd-$key
if [ ! -x "$bin" ]; then
  mkdir -p "$cache"
  echo "building it; the first time takes a minute or two" >&2
  CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$bin.$$" . >&2
  mv "$bin.$$" "$bin"
  find "$cache" -maxdepth 1 -name 'vaultd-*' ! -name "vaultd-$key" -delete
fi
printf '%s\n' "$bin"
