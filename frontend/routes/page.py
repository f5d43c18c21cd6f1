"""`GET /`: the dashboard, three files and an icon without a build step or outside assets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter()

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline; and nobody frames a page that has a cancel button.
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def _read(name: str) -> bytes:
    return (files("frontend") / "dashboard" / name).read_bytes()


def _serve(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(_read(name), headers=_HEADERS, media_type=media_type)

    return serve


for _path, (_name, _media_type) in _FILES.items():
    router.add_api_route(_path, _serve(_name, _media_type), include_in_schema=False)
