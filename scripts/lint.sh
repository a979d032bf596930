#!/usr/bin/env bash
# What can be said of the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
fail=0
# check NAME COMMAND...: the command succeeds and says nothing but what it downloads.
check() {
  printf '%-28s' "$1"
  shift
  status=0
  out=$("$@" 2>&1) || status=$?
  out=$(grep -v '^go: downloading ' <<<"$out" || true)
  if [ "$status" = 0 ] && [ -z "$out" ]; then
    echo ok
  else
    printf 'FAILED\n%s\n' "$out"
    fail=1
  fi
}
unformatted() { git ls-files -z '*.go' | xargs -0 gofmt -l; }
vet() { GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go vet ./...; }
build() { GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go build -o /dev/null ./cmd/credresolve; }
nested() { for m in bench examples/adapters/go; do (cd "$m" && go vet ./...) || return 1; done; }
check gofmt unformatted
check "go vet" go vet ./...
check "go vet, other modules" nested
check staticcheck go tool -modfile=tools/go.mod staticcheck ./...
check "go mod tidy" go mod tidy -diff
check "vet for darwin/arm64" vet darwin arm64
check "vet for windows/amd64" vet windows amd64
check "build for linux/amd64" build linux amd64
check "build for darwin/arm64" build darwin arm64
check "build for windows/amd64" build windows amd64
exit $fail
