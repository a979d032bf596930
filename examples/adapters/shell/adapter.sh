#!/bin/sh
# Answers credresolve with the secrets of a JSON file: adapter.sh FILE. It needs jq: apt-get install jq, brew install jq.
set -eu
command -v jq >/dev/null || { echo "jq is not installed" >&2; exit 1; }
# Ids reach jq as data alone, never as a part of its program or of a command line.
exec jq --compact-output --slurp --slurpfile secrets "$1" '
	if length == 1 and .[0].protocolVersion == 1 then .[0].ids else error("not a request of protocol version 1") end
	| reduce .[] as $id ({protocolVersion: 1, values: {}, errors: {}};
		if ($secrets[0] | has($id)) then .values[$id] = $secrets[0][$id] else .errors[$id] = {code: "NOT_FOUND"} end)'
