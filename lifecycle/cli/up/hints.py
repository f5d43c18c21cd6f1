"""Compose the text that `up` prints once everything is ready: URLs, and commands to copy into another terminal."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from lifecycle.settings import Settings, environment_name

DEMO_ID = "demo-1"
_PROMPT = "The quick brown fox jumps over the lazy dog and runs on."
_DEMO_SECS = 60  # long enough to cancel the request by hand
_LONGEST_REPEAT = 10_000
_KEY = "LIFECYCLE_KEY"


def text(urls: Sequence[str], model: str, engine: str, settings: Settings, *, own_redis: bool) -> str:
    """Return the URLs, a command that streams, and commands that list and cancel the request meanwhile."""
    first, other = urls[0], urls[-1]
    elsewhere = "through the other frontend" if other != first else "from another terminal"
    where = "\n".join(f"  {url}/" for url in urls)
    curl = _curl(settings)
    key = f"export {_KEY}=YOUR_API_KEY\n  " if settings.api_keys else ""
    redis = f"export {environment_name('redis_url')}={shlex.quote(settings.redis_url)}\n  " if own_redis else ""
    return f"""
Ready. The dashboard and the API:
{where}

Stream an answer (each request needs an id of its own, or none):
  {key}{stream_command(first, model, engine, settings)}

Meanwhile, see what is inflight, and cancel it {elsewhere}:
  {curl} {other}/v1/inflight
  {curl} -X POST '{other}/v1/requests/{DEMO_ID}/cancel?wait_ms=5000'

The same from the command line:
  {redis}{program()} ps

Ctrl-C stops everything.
"""


def program() -> str:
    """Return the command for another terminal: `lifecycle` if it is on the PATH, else its full path."""
    path = Path(sys.executable).with_name("lifecycle")
    return shlex.quote(str(path)) if path.exists() and not shutil.which("lifecycle") else "lifecycle"


def _curl(settings: Settings) -> str:
    return f'curl -H "Authorization: Bearer ${_KEY}"' if settings.api_keys else "curl"


def stream_command(url: str, model: str, engine: str, settings: Settings) -> str:
    """Return the curl command that starts the demo request as a stream."""
    curl, body = _curl(settings), orjson.dumps(demo_body(model, engine, settings)).decode()
    return (
        f"{curl} -N {url}/v1/chat/completions -H 'Content-Type: application/json' -H 'X-Request-Id: {DEMO_ID}'"
        f" -d {shlex.quote(body)}"
    )


def demo_body(model: str, engine: str, settings: Settings) -> dict[str, Any]:
    """Return a request body whose answer takes about a minute, as far as the engine can be told so."""
    if engine != "echo":
        messages = [{"role": "user", "content": "Count slowly from one to a thousand, in words."}]
        return {"model": model, "stream": True, "messages": messages}
    words_per_sec = settings.echo_tokens_per_sec or 1e6
    repeat = min(_LONGEST_REPEAT, max(1, round(words_per_sec * _DEMO_SECS / len(_PROMPT.split()))))
    messages = [{"role": "user", "content": _PROMPT}]
    return {"model": model, "stream": True, "echo_repeat": repeat, "messages": messages}
