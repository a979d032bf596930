#!/bin/sh
# An executable that answers for secrets: one JSON object in, one out.
ids=$(cat)
case $ids in
*metrics-token*) echo '{"protocolVersion": 1, "values": {"metrics-token": "from-an-executable"}}' ;;
*) echo '{"protocolVersion": 1, "values": {}}' ;;
esac
