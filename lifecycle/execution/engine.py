"""Define the interface between a worker and its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.settings import SettingsError
from lifecycle.types import Event

Engine = Callable[[dict[str, Any], EngineContext], AsyncIterator[Event]]
"""An async generator function, `async def generate(request, context)`, that the worker calls once per attempt.

It takes the body of the call as a dict, and yields events: a `str` is the text of one token of choice 0, a `dict` is a
chunk of the endpoint's format without `id`, `object`, `created` and `model`. It should end soon after
`context.stopped()` returns; on a kill it is cancelled at its next await.

An `EngineError` that it raises reaches the client with its status, type, code and param; `Unavailable` says that it
cannot serve now. Any other exception fails the request as `internal`, with `str()` of the exception as the message.

It may declare, as attributes of the function or of an object with `__call__`:

- `resumable`: True when it continues behind `context.emitted`
- `endpoints`: the names of the endpoints that it serves, as a collection of str; without the attribute
  chat_completions and completions. It may change later, and is read at each heartbeat. For one of FORWARDS the engine
  yields exactly one dict, the body of the answer
- `accepts`: the names in GATED_PARAMETERS that it takes, as a collection of str, or True for all parameters. Without
  the attribute it takes none of them. All other parameters reach every engine.
- `max_model_len`: the longest prompt and answer together, in tokens, as `GET /v1/models` shows it: a positive int, or
  a mapping from the names of models to one. It may be set later, and is read at each heartbeat
- `run_in_thread`: True for a synchronous generator function; each of its attempts runs in a thread. It may read the
  context's attributes and set `finish_reason`, `input_tokens` and `usage`; everything else belongs to the event loop
- `concurrency`: how many requests the worker runs at a time, unless its settings say so; with `auto` the most
- `startup`, `health`, `aclose`: async functions without arguments. `startup` is awaited before the worker takes
  anything, `health` raises when the engine cannot serve, and `aclose` is awaited when the worker ends
- `waiting`: an async function without arguments that returns how many requests the engine holds back, or None; it is
  awaited each second by a worker whose concurrency is `auto`
"""

GATED_PARAMETERS = frozenset(
    {
        "audio",
        "best_of",
        "echo",
        "function_call",
        "functions",
        "logprobs",
        "modalities",  # with audio in it
        "n",
        "prediction",
        "prompt",  # several prompts, or token ids
        "response_format",
        "suffix",
        "tool_choice",
        "tools",
        "top_logprobs",
        "web_search_options",
    }
)
"""The parameters that reach only an engine that declares them, when they ask for something."""


class EngineLoadError(SettingsError):
    """Raised when an engine cannot be found or used. The message is one line that says what to do."""


async def aclose(closable: object) -> None:
    """Close an engine, or what it has returned, by its `aclose()` if it has one. Raise whatever that raises."""
    close = getattr(closable, "aclose", None)
    if close is not None:
        await close()
