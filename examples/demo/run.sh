#!/usr/bin/env bash
# Puts a secret into an encrypted file, and resolves an application's configuration that points at it, at an environment
# variable, at a file and at an executable. Needs Go; leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/credresolve" ../../cmd/credresolve
umask 077
cp grafana.yaml "$work/"
cp issue-token.sh "$work/" && chmod 700 "$work/issue-token.sh"
cd "$work"
export PATH=$work:$PATH HOME=$work XDG_STATE_HOME=$work/state CREDRESOLVE_CONFIG=$work/credresolve.yaml

# The file that opens the encrypted store, and a JSON file with another secret; both are readable for their owner alone.
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >keychain.password
printf '{"smtp": {"password": "from-a-file"}}' >secrets.json
export GRAFANA_ADMIN=from-the-environment

cat >credresolve.yaml <<YAML
version: 1
providers:
  desk: {kind: keychain, backend: file, path: keychain, password: {provider: key, id: value}}
  key:  {kind: file, path: keychain.password, mode: raw}
  env:  {kind: env, allow: [GRAFANA_ADMIN]}
  conf: {kind: file, path: secrets.json, mode: json}
  corp: {kind: exec, command: $work/issue-token.sh}
YAML

show() { printf '\n$ %s\n' "$*"; "$@"; }
show cat grafana.yaml
printf '\n$ %s\n' 'printf from-the-keychain | credresolve put cred://desk/grafana/db'
printf from-the-keychain | credresolve put cred://desk/grafana/db
show credresolve check grafana.yaml
show credresolve render grafana.yaml
