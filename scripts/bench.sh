#!/usr/bin/env bash
# Prints the table of ratios, each with its limit, and fails when one is exceeded. Flags are those of bench/main.go.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CREDRESOLVE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credresolve-test}
mkdir -p "$cache"
if CREDRESOLVE_VAULTD=$(scripts/vaultd.sh "$cache"); then export CREDRESOLVE_VAULTD; fi
if scripts/moto-setup.sh "$cache/moto" >/dev/null; then export CREDRESOLVE_MOTO=$cache/moto; fi
go build -C bench -o "$cache/bench" .
cd bench
exec "$cache/bench" -check "$@"
