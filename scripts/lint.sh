#!/usr/bin/env bash
# What can be said of the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0
check() { printf '%-28s' "$1"; shift; if out=$("$@" 2>&1) && [ -z "$out" ]; then echo ok; else echo FAILED; printf '%s\n' "$out"; fail=1; fi; }
unformatted() { git ls-files -z '*.go' | xargs -0 gofmt -l; }
cross() { GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go vet ./...; }
tidy() { go mod tidy -diff; }
check gofmt unformatted
check "go vet" go vet ./...
check staticcheck go tool -modfile=tools/go.mod staticcheck ./...
check "go mod tidy" tidy
check "vet for darwin/arm64" cross darwin arm64
check "vet for windows/amd64" cross windows amd64
check "build for linux, static" env CGO_ENABLED=0 go build -o /dev/null ./cmd/credresolve
check "build for darwin/arm64" env CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/credresolve
check "build for windows/amd64" env CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build -o /dev/null ./cmd/credresolve
exit $fail
