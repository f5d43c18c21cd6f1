"""Serve `GET /` and the other files of the dashboard."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType

router = APIRouter()

_STATIC = files("frontend.dashboard") / "static"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # Only files of this frontend, nothing inline, and no frames: the page has buttons that cancel requests.
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def _content(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


def _serve(name: str) -> Response:
    return Response(_content(name), headers=_HEADERS, media_type=_TYPES[name.rpartition(".")[2]])


_FILES = frozenset(entry.name for entry in _STATIC.iterdir() if entry.name != "index.html")


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """Return the dashboard's page."""
    return _serve("index.html")


@router.get("/dashboard/{name}", include_in_schema=False)
async def file(name: str) -> Response:
    """Return another file of the dashboard. Raises ApiError (404)."""
    if name not in _FILES:
        raise ApiError(ErrorType.NOT_FOUND, f"The dashboard has no file {name!r}")
    return _serve(name)
