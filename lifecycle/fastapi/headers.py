"""A call's headers, by name."""

from __future__ import annotations

from typing import cast

from starlette.types import Scope

_STATE = "headers"


def headers_of(scope: Scope) -> dict[str, str]:
    """By names in lower case; of several the first. Starlette's go through all of them at each look."""
    state = scope["state"]
    if _STATE not in state:
        state[_STATE] = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    return cast(dict[str, str], state[_STATE])
