#!/usr/bin/env bash
# Runs every test against real servers: installs what is missing (as root on Debian), builds the Vault server, runs the
# tests of every module under the race detector, and lists at the end what was skipped and how to get it.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CREDRESOLVE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credresolve-test}
mkdir -p "$cache"

say() { printf '\n== %s\n' "$*"; }

say "system packages"
scripts/packages.sh

say "Vault server"
if CREDRESOLVE_VAULTD=$(scripts/vaultd.sh "$cache"); then export CREDRESOLVE_VAULTD; else echo "not built: its tests will be skipped"; fi

say "AWS emulator"
if scripts/moto-setup.sh "$cache/moto"; then export CREDRESOLVE_MOTO=$cache/moto; else echo "not installed: its tests will be skipped"; fi

say "tests"
go tool -modfile=tools/go.mod gotestsum --format pkgname --hide-summary=output --  -race -timeout 15m "$@" ./...
