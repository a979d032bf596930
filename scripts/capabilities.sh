#!/usr/bin/env bash
# Runs the conformance suite over every adapter and its real store, writes the reports to docs/conformance, and makes
# docs/capabilities.md of them. What its servers need is installed as by make test.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CREDRESOLVE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credresolve-test}
mkdir -p "$cache" docs/conformance
scripts/packages.sh
if [ -z "${CREDRESOLVE_VAULTD-}" ]; then CREDRESOLVE_VAULTD=$(scripts/vaultd.sh "$cache"); fi
if [ -z "${CREDRESOLVE_MOTO-}" ]; then scripts/moto-setup.sh "$cache/moto"; CREDRESOLVE_MOTO=$cache/moto; fi
export CREDRESOLVE_VAULTD CREDRESOLVE_MOTO
export CREDRESOLVE_CONFORMANCE_REPORTS=$PWD/docs/conformance
go test -count=1 -run 'Conform|TestExamplesPass' ./adapters/... ./conformance/execs
unset CREDRESOLVE_CONFORMANCE_REPORTS
go generate ./internal/conformancetest
