#!/usr/bin/env bash
# Prints the table of ratios, each with its limit, and fails when one is exceeded. Flags are those of bench/main.go. With
# VALS=1 it also builds helmfile/vals as a peer, which takes some minutes, since vals links the SDKs of every cloud.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CREDRESOLVE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credresolve-test}
mkdir -p "$cache"
if CREDRESOLVE_VAULTD=$(scripts/vaultd.sh "$cache"); then export CREDRESOLVE_VAULTD; fi
if scripts/moto-setup.sh "$cache/moto" >/dev/null; then export CREDRESOLVE_MOTO=$cache/moto; fi
if [ "${VALS:-}" = 1 ]; then
  go build -C bench/vals -o "$cache/vals" .
  export CREDRESOLVE_BENCH_VALS=$cache/vals
fi
go build -C bench -o "$cache/bench" .
cd bench
exec "$cache/bench" -check "$@"
