#!/bin/sh
# Installs the Debian packages that the tests use, where this is Debian and we are root; says so where not.
set -eu
need=
want() { command -v "$1" >/dev/null 2>&1 || need="$need $2"; }
want gnome-keyring-daemon gnome-keyring
want dbus-run-session dbus
want pass pass
want gpg gnupg
want keyctl keyutils
want secret-tool libsecret-tools
want python3 python3
want openssl openssl
want jq jq
want curl curl
want make make
want node nodejs
want chromium chromium
[ -n "$need" ] || { echo "all there"; exit 0; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "missing, and not to be installed without root on Debian:$need"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $need >/dev/null
echo "installed:$need"
