"""Decode the headers of an HTTP call once, for every part of the frontend that reads one of them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

Headers = Mapping[str, str]
_STATE = "headers"


def decode_headers(scope: Scope) -> Headers:
    """Decode the headers and keep them in the scope's state, where `headers_of` finds them.

    Return them by name in lower case. Of several headers with one name the first is kept. Starlette's own type
    searches all headers at each access.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    scope["state"][_STATE] = headers
    return headers


def headers_of(scope: Scope) -> Headers:
    """Return the headers of this call as `decode_headers` left them."""
    headers: Headers = scope["state"][_STATE]
    return headers
