#!/usr/bin/env python3
"""Asks a sidecar for credentials, with the standard library alone.

    python3 client.py cred://conf//db/password
"""

import http.client
import json
import os
import socket
import sys
import urllib.parse


class Sidecar(http.client.HTTPConnection):
    """An HTTP connection over the sidecar's Unix socket."""

    def __init__(self):
        super().__init__("localhost", timeout=60)

    def connect(self):
        path = os.environ.get("CREDRESOLVE_SOCKET") or os.environ["XDG_RUNTIME_DIR"] + "/credresolve/sock"
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(path)

    def ask(self, method, path, body=None, headers=None):
        """Gives status, headers and answer of one request."""
        headers = dict(headers or {})
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        self.request(method, path, body, headers)
        response = self.getresponse()
        text = response.read()
        return response.status, response.headers, json.loads(text) if text else None


def parts(ref):
    """The map of a short form cred://provider/id#field."""
    rest, _, field = ref.removeprefix("cred://").partition("#")
    provider, _, ident = rest.partition("/")
    out = {"provider": provider, "id": urllib.parse.unquote(ident)}
    if field:
        out["field"] = urllib.parse.unquote(field)
    return out


def main(refs):
    sys.stdout.reconfigure(line_buffering=True)  # also where it is a pipe
    sidecar = Sidecar()
    path = "/v1/resolve?ref=" + urllib.parse.quote(refs[0], safe="")
    status, headers, answer = sidecar.ask("GET", path)
    if status != 200:
        print(answer["error"]["code"], answer["error"]["message"], sep=": ", file=sys.stderr)
        return 1
    print(answer["value"])

    # What is not changed is not sent again.
    status, _, _ = sidecar.ask("GET", path, headers={"If-None-Match": headers["ETag"]})
    print("unchanged" if status == 304 else "changed")

    status, _, answer = sidecar.ask("POST", "/v1/resolve", {"refs": [parts(r) for r in refs]})
    there = sum("error" not in result for result in answer["results"])
    print(there, "of", len(refs), "are there")

    # Server-sent events: how the ref stands, then each change.
    revision = headers["ETag"].strip('"')
    sidecar.request("GET", "/v1/watch?ref=" + urllib.parse.quote(refs[0], safe=""))
    for line in sidecar.getresponse():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "data" and json.loads(value).get("revision", revision) != revision:
            print("it changed")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
