#!/usr/bin/env python3
"""Verify a webhook of credresolve, by the rules of Standard Webhooks, with the standard library alone.

As a program it reads the body from standard input: verify.py KEY ID TIMESTAMP SIGNATURE < BODY
"""
import base64
import hashlib
import hmac
import json
import sys
import time

TOLERANCE = 300  # seconds


def verify(key: str, headers: dict, body: bytes) -> dict:
    """Give the event that body tells of. It raises ValueError where the signature is wrong or old."""
    secret = base64.b64decode(key[len("whsec_"):]) if key.startswith("whsec_") else key.encode()
    ident, stamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > TOLERANCE:
        raise ValueError("the timestamp is too old, or of the future")
    signed = f"{ident}.{stamp}.".encode() + body
    want = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    for one in headers["webhook-signature"].split(" "):
        version, _, signature = one.partition(",")
        if version == "v1" and hmac.compare_digest(signature, want):
            return json.loads(body)
    raise ValueError("no signature is right")


if __name__ == "__main__":
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    try:
        event = verify(sys.argv[1], dict(zip(names, sys.argv[2:])), sys.stdin.buffer.read())
    except ValueError as err:
        sys.exit(f"refused: {err}")
    print(event["type"], event["data"]["ref"]["id"], event["data"]["state"])
