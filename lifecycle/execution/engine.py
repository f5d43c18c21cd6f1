"""Define the interface between a worker and its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.settings import SettingsError
from lifecycle.store.worker_roster import EVERYTHING
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


def is_resumable(engine: Engine) -> bool:
    """Return whether the engine declares, by `resumable = True`, that it continues behind `context.emitted`.

    If its worker dies, another worker then tries the request again, and the client receives one uninterrupted text.
    """
    return getattr(engine, "resumable", False) is True


def accepted_parameters(engine: Engine) -> list[str]:
    """Return the gated parameters that the engine declares to take, sorted; `["*"]` stands for all of them.

    Raise EngineLoadError when its `accepts` is neither True nor a collection of names in GATED_PARAMETERS.
    """
    declared: object = getattr(engine, "accepts", ())
    if declared is True:
        return [EVERYTHING]
    if declared == ():
        return []
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise EngineLoadError(
            f"the engine's attribute accepts is {declared!r:.50}; it must be True or a collection of parameter names"
        )
    unknown = sorted(repr(name) for name in declared if name not in GATED_PARAMETERS)
    if unknown:
        raise EngineLoadError(
            f"the engine's attribute accepts names {', '.join(unknown)}; "
            f"it may name these: {', '.join(sorted(GATED_PARAMETERS))}"
        )
    return sorted(set(declared))


def max_model_lens(engine: Engine, models: Iterable[str]) -> dict[str, int]:
    """Return the `max_model_len` that the engine declares, in tokens, for each of `models` that has one."""
    declared: object = getattr(engine, "max_model_len", None)
    found = {name: declared.get(name) if isinstance(declared, Mapping) else declared for name in models}
    return {name: length for name, length in found.items() if type(length) is int and length > 0}


def check_max_model_len(engine: Engine) -> None:
    """Raise EngineLoadError when the engine declares a `max_model_len` that is none."""
    declared: object = getattr(engine, "max_model_len", None)
    lengths = list(declared.values()) if isinstance(declared, Mapping) else [declared]
    for length in lengths:
        if length is not None and not (type(length) is int and length > 0):
            raise EngineLoadError(
                f"the engine's attribute max_model_len is {length!r:.50}; it must be a positive int, a number of tokens"
            )


async def close_engine(engine: Engine) -> None:
    """Release what the engine holds between requests, by its `aclose()` if it has one.

    Raise whatever the engine's `aclose()` raises.
    """
    aclose = getattr(engine, "aclose", None)
    if aclose is not None:
        await aclose()
