"""Know which endpoints an engine serves, and which ones its worker offers by translation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from lifecycle.execution.engine import Engine, EngineLoadError
from lifecycle.store.arguments import endpoints_argument
from lifecycle.types import COUNT_TOKENS, NATIVE, TRANSLATABLE, TRANSLATED, Endpoint

_NAMES = (*(name.value for name in Endpoint), COUNT_TOKENS)
DEFAULT_ENDPOINTS = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS)


def offered_endpoints(engine: Engine) -> Mapping[str, str]:
    """Return the endpoints that a worker with this engine offers, each with NATIVE or TRANSLATED.

    Raise EngineLoadError when the engine's `endpoints` is not a collection of names of endpoints.
    """
    return _offered(_declared(engine))


def offered_argument(engine: Engine) -> str:
    """Return the same endpoints as `Store.take` takes them."""
    return _argument(_declared(engine))


def _declared(engine: Engine) -> tuple[object, ...]:
    declared: object = getattr(engine, "endpoints", DEFAULT_ENDPOINTS)
    if type(declared) is tuple and declared:  # the usual case, asked at each take
        return declared
    if isinstance(declared, (str, Mapping)) or not isinstance(declared, Collection) or not declared:
        raise EngineLoadError(
            f"the engine's attribute endpoints is {declared!r:.50}; it must be a collection of names of endpoints"
        )
    return tuple(declared)


@lru_cache
def _offered(declared: tuple[object, ...]) -> Mapping[str, str]:
    unknown = sorted(repr(name) for name in declared if name not in _NAMES)
    if unknown:
        raise EngineLoadError(
            f"the engine's attribute endpoints names {', '.join(unknown)}; it may name these: {', '.join(_NAMES)}"
        )
    offered: dict[str, str] = {name: NATIVE for name in _NAMES if name in declared}
    for name, through in TRANSLATABLE.items():
        if through in offered:
            offered.setdefault(name.value, TRANSLATED)
    return MappingProxyType(offered)


@lru_cache
def _argument(declared: tuple[object, ...]) -> str:
    return endpoints_argument(_offered(declared))
