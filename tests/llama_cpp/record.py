"""Record what llama.cpp answers to calls, streamed and unary, byte for byte.

python -m tests.llama_cpp.record tests/recorded
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from tests.llama_cpp.calls import MODEL, ONE_TOOL, REPEATABLE, RESPONSE, RESPONSE_TOOLS, SEVERAL_TOOLS, STRUCTURED
from tests.llama_cpp.engine import LlamaCpp, llama_cpp

_SENTENCE = {"grammar": 'root ::= "The weather in Paris is sunny."'}
CALLS: dict[str, dict[str, Any]] = {
    "llama_text": _SENTENCE,
    "llama_logprobs": {**_SENTENCE, "logprobs": True, "top_logprobs": 2, "max_tokens": 12},
    "llama_one_tool": {**ONE_TOOL, "tools": ONE_TOOL["tools"][:1]},
    "llama_parallel_tools": {**SEVERAL_TOOLS, "seed": 2, "temperature": 1},  # three calls of two tools
    "llama_structured": STRUCTURED,
}
RESPONSES: dict[str, dict[str, Any]] = {"text": {**RESPONSE, **_SENTENCE}, "tools": RESPONSE_TOOLS}
TOO_LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "long " * 5000}]}


def post(engine: LlamaCpp, **fields: Any) -> httpx2.Response:
    body = {**REPEATABLE, "model": MODEL, **fields}
    return httpx2.post(engine.url + "/v1/chat/completions", json=body, trust_env=False)


def record(engine: LlamaCpp, directory: Path) -> None:
    """Write one `.sse` and one `.json` file for each call, and the refusal of a prompt that is too long.

    Calls of the Responses API are only streamed.
    """
    for name, fields in CALLS.items():
        streamed = post(engine, stream=True, stream_options={"include_usage": True}, **fields).raise_for_status()
        (directory / f"{name}.sse").write_bytes(streamed.content)
        (directory / f"{name}.json").write_bytes(post(engine, **fields).raise_for_status().content)
    for name, given in RESPONSES.items():
        body = {key: value for key, value in given.items() if key != "extra_body"} | given["extra_body"]
        answer = httpx2.post(engine.url + "/v1/responses", json={**body, "stream": True}, trust_env=False)
        (directory / "responses" / f"llama_{name}.sse").write_bytes(answer.raise_for_status().content)
    refused = post(engine, **TOO_LONG)
    assert refused.status_code == 400, refused.text
    (directory / "llama_context_overflow.json").write_bytes(refused.content)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, llama_cpp(Path(scratch)) as running:
        record(running, Path(sys.argv[1]))
