#!/bin/sh
# Asks a sidecar for credentials, with curl and jq.
#
#     sh client.sh cred://conf//db/password
set -eu
socket=${CREDRESOLVE_SOCKET:-$XDG_RUNTIME_DIR/credresolve/sock}
work=$(mktemp -d) # mode 0700; no value is written there
trap 'rm -rf "$work"' EXIT

# A secret stays off the command line: it goes from curl's output to jq's.
ask() { curl --silent --unix-socket "$socket" "$@"; }

answer=$(ask --get http://localhost/v1/resolve --data-urlencode "ref=$1" --dump-header "$work/head")
if ! printf %s "$answer" | jq --exit-status --raw-output .value 2>/dev/null; then
  printf %s "$answer" | jq --raw-output '.error.code + ": " + .error.message' >&2
  exit 1
fi

# What is not changed is not sent again.
etag=$(sed -n 's/^[Ee][Tt]ag: *\("[^"]*"\).*/\1/p' "$work/head")
status=$(ask --get http://localhost/v1/resolve --data-urlencode "ref=$1" --header "If-None-Match: $etag" --output /dev/null --write-out '%{http_code}')
[ "$status" = 304 ] && echo unchanged || echo changed

refs=$(printf '%s\n' "$@" | jq --raw-input --slurp '{refs: (split("\n")[:-1] | map(capture("^cred://(?<provider>[^/]+)/(?<id>[^#]*)(#(?<field>.*))?$") | del(..|nulls)))}')
ask http://localhost/v1/resolve --json "$refs" | jq --raw-output '"\([.results[] | select(.error | not)] | length) of \(.results | length) are there"'

# Server-sent events: how the ref stands, then each change. The first that tells another revision ends it.
revision=$(printf %s "$etag" | tr -d '"')
mkfifo "$work/events"
curl --silent --unix-socket "$socket" --no-buffer --get http://localhost/v1/watch --data-urlencode "ref=$1" > "$work/events" &
watch=$!
trap 'kill $watch 2>/dev/null || :; rm -rf "$work"' EXIT
while read -r name value; do
  [ "$name" = data: ] || continue
  now=$(printf %s "$value" | jq --raw-output '.revision // empty')
  if [ -n "$now" ] && [ "$now" != "$revision" ]; then
    echo "it changed"
    exit 0
  fi
done < "$work/events"
exit 1
