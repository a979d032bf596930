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

say "OpenClaw"
if CREDRESOLVE_OPENCLAW=$(scripts/openclaw-setup.sh "$cache/openclaw"); then export CREDRESOLVE_OPENCLAW; else echo "not installed: its tests will be skipped"; fi

say "compilation of the tests"
go test -race -run '^$' ./... >/dev/null

# One package after another: many of them start servers and hold programs to time limits, which two at once would exceed on
# a small machine.
say "tests"
log=$cache/tests.json
status=0
go tool -modfile=tools/go.mod gotestsum --format pkgname --hide-summary=skipped --jsonfile "$log" -- \
  -race -p 1 -timeout 20m "$@" ./... || status=$?

say "examples of adapters"
(cd examples/adapters/go && go test -race ./...) || status=1

if ! command -v jq >/dev/null; then
  echo "without jq there is no look for secrets and no list of what was skipped"
  exit "$status"
fi

say "secrets in what the tests print"
# Every secret of the tests holds this mark. The scripts of the command print secrets where they are asked for, and look
# for others themselves.
if jq -r 'select(.Action == "output" and (.Package | endswith("/cmd/credresolve") | not)) | .Package + ": " + (.Output | rtrimstr("\n"))' "$log" | grep c4nary; then
  echo "a secret shows"
  status=1
else
  echo "none"
fi

say "skipped for want of something, and how to get it"
jq -r 'select(.Action == "output" and .Test != null and (.Test | test("Conform|^TestMemory/") | not)) | .Output' "$log" |
  sed -nE 's/^ *[A-Za-z0-9_]+\.go:[0-9]+: (needs .*)$/\1/p' | sort | uniq -c
printf '%7d cases of the conformance suite, about what a kind of store has not: docs/capabilities.md\n' \
  "$(jq -r 'select(.Action == "skip" and .Test != null and (.Test | test("Conform|^TestMemory/"))) | .Test' "$log" | wc -l)"
exit "$status"
