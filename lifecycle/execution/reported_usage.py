"""Read the usage that an engine has reported through its context."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from lifecycle.execution.context import EngineContext
from lifecycle.formats import chunk_events as events

log = logging.getLogger(__name__)

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_MAX_USAGE_BYTES = 16 * 1024


def reported_usage(context: EngineContext) -> dict[str, Any] | None:
    """Return the usage object, or None when there is none.

    Counts that are no integers are left out. Of a usage of more than 16 KiB only the counts are kept.
    """
    if context.usage is None and context.input_tokens is None:
        return None
    usage = _as_json(context)
    for name in _COUNTS:
        if type(usage.get(name, 0)) is not int:
            del usage[name]
    if type(context.input_tokens) is int:
        usage.setdefault("prompt_tokens", context.input_tokens)
    return usage or None


def _as_json(context: EngineContext) -> dict[str, Any]:
    if context.usage is None:
        return {}
    try:
        _, encoded = events.encode(context.usage)
    except TypeError:
        log.warning("the engine set the usage of request %s to a value that is not a JSON object", context.id)
        return {}
    usage: dict[str, Any] = orjson.loads(encoded)
    if len(encoded) <= _MAX_USAGE_BYTES:
        return usage
    log.warning(
        "the usage of request %s has %d bytes, more than %d; only its counts are kept",
        context.id,
        len(encoded),
        _MAX_USAGE_BYTES,
    )
    return {name: usage[name] for name in _COUNTS if name in usage}
