#!/usr/bin/env python3
"""Answers credresolve with the secrets of a JSON file: adapter.py FILE."""
import json
import sys


def main(path):
    try:
        request = json.loads(sys.stdin.buffer.read().decode("utf-8"))
        if request["protocolVersion"] != 1:
            raise ValueError
        ids = request["ids"]
    except (ValueError, KeyError, TypeError):
        return "standard input is not a request of protocol version 1"
    try:
        with open(path, encoding="utf-8") as file:
            secrets = json.load(file)
    except (OSError, ValueError):
        return "the file of secrets cannot be read"
    values = {id: secrets[id] for id in ids if id in secrets}
    errors = {id: {"code": "NOT_FOUND"} for id in ids if id not in secrets}
    json.dump({"protocolVersion": 1, "values": values, "errors": errors}, sys.stdout)


# What main returns is printed to standard error, and the exit status is 1: no id is answered.
sys.exit(main(*sys.argv[1:]))
