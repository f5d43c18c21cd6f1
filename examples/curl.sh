#!/bin/sh
# Start a request with curl, read its record, resume its stream at another frontend, and cancel it there.
#
#   examples/curl.sh [http://localhost:8000 http://localhost:8001]
set -eu
here=${1:-http://localhost:8000}
there=${2:-http://localhost:8001}
id=curl-$$-$(date +%s)

# The request continues without its client: --max-time closes the connection after one second.
curl -sN --max-time 1 "$here/v1/chat/completions" -H "X-Request-Id: $id" -H 'X-On-Disconnect: continue' \
  -d '{"model":"echo","stream":true,"messages":[{"role":"user","content":"the quick brown fox"}],"echo_repeat":1000}' || true

echo; echo "it runs on:"
curl -s "$there/v1/requests/$id"

echo; echo "from its third token on, for half a second, at the other frontend:"
curl -sN --max-time 0.5 "$there/v1/requests/$id/stream" -H 'Last-Event-ID: 1-2' || true

echo; echo "cancelled, once its worker has confirmed it:"
curl -s -X POST "$there/v1/requests/$id/cancel?wait_ms=5000"
echo
