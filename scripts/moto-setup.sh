#!/bin/sh
# Puts moto, an independent emulator of AWS, into the folder $1 for internal/mototest, unless it is there. Needs root on
# Debian 12 or later for that. What moto imports comes from Debian's own packages; moto itself, which Debian 12 lacks, is
# unpacked from the package of Debian 13 beside the system, whose apt sources and packages stay as they are.
set -eu
dest=${1:?usage: moto-setup.sh DIR}

works() {
  PYTHONPATH="$dest/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c '
from moto.moto_server import werkzeug_app
import moto.secretsmanager.models, moto.secretsmanager.responses, moto.sts.responses, moto.moto_api._internal.urls
' >/dev/null 2>&1
}

if works; then
  echo "all there"
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "moto is missing, and not to be installed without root on Debian" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3 python3-boto3 python3-flask python3-flask-cors python3-responses \
  python3-xmltodict python3-jinja2 python3-cryptography python3-werkzeug python3-dateutil python3-requests \
  python3-antlr4 debian-archive-keyring >/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
apt="apt-get -qq -o APT::Sandbox::User=root"
if ! apt-cache show python3-moto >/dev/null 2>&1; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  : >"$work/status"
  echo "deb [signed-by=$keys] ${mirror:-http://deb.debian.org/debian/} trixie main" >"$work/trixie.list"
  apt="$apt -o Dir::Etc::sourcelist=$work/trixie.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists"
  apt="$apt -o Dir::State::status=$work/status -o Dir::Cache=$work/cache -o Acquire::Languages=none"
  $apt update
fi
mkdir "$work/deb" "$work/root"
(cd "$work/deb" && $apt download python3-moto)
dpkg -x "$work"/deb/python3-moto_*.deb "$work/root"

mkdir -p "$(dirname "$dest")"
rm -rf "$dest"
cp -R "$work/root" "$dest"
if ! works; then
  echo "moto is unpacked in $dest, but does not start with the Python packages of this system" >&2
  exit 1
fi
echo "installed moto in $dest"
