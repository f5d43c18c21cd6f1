"""Stream with the openai SDK, resume at another frontend after the connection is lost, and cancel there.

python examples/openai_sdk.py [http://localhost:8000 http://localhost:8001]
"""

from __future__ import annotations

import json
import sys
import uuid

import openai
from openai.types.chat import ChatCompletionChunk

here, there = sys.argv[1:] or ["http://localhost:8000", "http://localhost:8001"]
first = openai.OpenAI(base_url=here + "/v1", api_key="-")
second = openai.OpenAI(base_url=there + "/v1", api_key="-")

# The idempotency key makes the SDK's own retries safe: they attach to the same request. The grace keeps the request
# running after its client has lost the connection.
headers = {"Idempotency-Key": str(uuid.uuid4()), "X-Disconnect-Grace-Secs": "30"}

request_id, last_id, text = "", "", ""
with first.chat.completions.with_streaming_response.create(
    model="echo",
    messages=[{"role": "user", "content": "the quick brown fox jumps over the lazy dog"}],
    stream=True,
    extra_headers=headers,
    extra_body={"echo_repeat": 1000},  # a parameter of the echo engine: how often it repeats the prompt
) as response:
    request_id = response.headers["x-request-id"]
    for line in response.iter_lines():
        if line.startswith("id: "):
            last_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
            if len(text) > 20:
                break  # simulate a lost connection
print(f"{request_id}: {text!r} up to {last_id}, and the connection is gone")

stream = second.get(
    f"/requests/{request_id}/stream",
    cast_to=object,
    stream=True,
    stream_cls=openai.Stream[ChatCompletionChunk],
    options={"headers": {"Last-Event-ID": last_id}},
)
try:
    for number, chunk in enumerate(stream):
        text += chunk.choices[0].delta.content or ""
        if number == 5:
            print(f"went on at the other frontend: {text!r}")
            record = second.post(f"/requests/{request_id}/cancel", cast_to=object, body={"wait_ms": 5000})
            print("cancelled:", record["status"])  # type: ignore[index]
except openai.APIError as error:
    print("the stream ended with:", error.message)
