"""Generate text from counted word pairs: an engine around a small model in Python, without a download or a GPU.

cd examples && lifecycle worker --model ngram --engine ngram:generate
curl -N localhost:8000/v1/completions -d '{"model":"ngram","stream":true,"prompt":"the","max_tokens":20}'
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

TEXT = """the request is queued . the worker takes the request and runs the engine . the engine makes a token and the
token goes to the client . the client goes away and the request is cancelled . the worker stops the engine and the
request is counted once ."""

FOLLOWERS: dict[str, list[str]] = defaultdict(list)
for word, follower in zip(TEXT.split(), TEXT.split()[1:], strict=False):
    FOLLOWERS[word].append(follower)


async def generate(request: dict[str, Any], context: Any) -> AsyncIterator[str]:
    """Yield one word at a time, until a stop or `max_tokens`. A kill cancels the engine at its next await."""
    prompt = request["messages"][-1]["content"] if "messages" in request else request["prompt"]
    words = prompt.split() or ["the"]
    context.input_tokens = len(words)
    dice = random.Random(request.get("seed"))
    word = words[-1]
    for _ in range(request.get("max_tokens") or 50):
        if context.is_stopped:
            return
        word = dice.choice(FOLLOWERS.get(word) or list(FOLLOWERS))
        yield " " + word
        await asyncio.sleep(0.01)  # a real model would compute here, in a thread: await asyncio.to_thread(step)
    context.finish_reason = "length"
