#!/usr/bin/env bash
# Puts OpenClaw, whose references this project resolves, into the folder $1 for the tests of cmd/credresolve, unless it is
# there, and prints the path of a program that runs it. Versions and checksums are those of testing/openclaw. It needs npm
# and its registry, and 40 seconds and 800 MB the first time; of OpenClaw's dependencies those that its gateway starts
# without stay away, and so does every script of a package. A Node that OpenClaw takes comes along where the machine has
# none, on Linux; elsewhere it has to be there.
set -euo pipefail
cd "$(dirname "$0")/../testing/openclaw"
dest=${1:?usage: openclaw-setup.sh DIR}
key=$(cat package-lock.json node/package-lock.json | sha256sum | cut -c1-16)
home=$dest/$key

if [ -x "$home/openclaw" ]; then
  printf '%s\n' "$home/openclaw"
  exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
  echo "OpenClaw is missing, and not to be installed without npm" >&2
  exit 1
fi

mkdir -p "$dest"
work=$(mktemp -d "$dest/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
install() { # folder with package.json and lock, arguments of npm
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-timeout=60000 "${@:2}" >&2)
}

# As OpenClaw's own package.json says.
fits() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit((a == 24 && b >= 16) || (a == 26 && b >= 1) || a > 26 ? 0 : 1)' >/dev/null 2>&1; }

echo "installing it; the first time takes a minute" >&2
cp -R package.json package-lock.json node "$work"
if node=$(command -v node) && fits "$node"; then
  mkdir -p "$work/node/bin"
  ln -s "$node" "$work/node/bin/node"
else
  if ! install "$work/node"; then
    echo "OpenClaw is missing, and npm's registry does not give the Node it needs" >&2
    exit 1
  fi
  found=("$work"/node/node_modules/node-*/bin/node)
  if ! fits "${found[0]}"; then
    echo "OpenClaw needs Node 24.16 or later, or 26.1 or later, which is not here, and npm's registry gives none for this system" >&2
    exit 1
  fi
  mkdir -p "$work/node/bin"
  ln -s "../${found[0]#"$work/node/"}" "$work/node/bin/node"
fi
if ! install "$work" --omit=dev --omit=optional --omit=peer; then
  echo "OpenClaw is missing, and npm's registry does not give it" >&2
  exit 1
fi
cat >"$work/openclaw" <<'EOF'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd) || exit
exec "$here/node/bin/node" "$here/node_modules/openclaw/openclaw.mjs" "$@"
EOF
chmod 755 "$work" "$work/openclaw"

# The first start of an installation does what scripts of the package would have done, which no two starts should do at once.
mkdir "$work/home"
if ! version=$(env -i HOME="$work/home" PATH="$PATH" "$work/openclaw" --version 2>/dev/null); then
  echo "OpenClaw is installed, but does not start" >&2
  exit 1
fi
rm -rf "$work/home"
[ -e "$home" ] || mv "$work" "$home" # else another one was faster
find "$dest" -mindepth 1 -maxdepth 1 -type d ! -name "$key" \( -name '[0-9a-f]*' -o -name 'new.*' -mtime +0 \) -exec rm -rf {} +
echo "installed $version" >&2
printf '%s\n' "$home/openclaw"
