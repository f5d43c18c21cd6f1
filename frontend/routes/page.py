"""`GET /`: the dashboard's files, without a build step or outside assets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter()

_STATIC = files("frontend.dashboard") / "static"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline; and nobody frames a page that has a cancel button.
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _serve(name: str) -> Callable[[], Awaitable[Response]]:
    content, media_type = (_STATIC / name).read_bytes(), _TYPES[name.rpartition(".")[2]]

    async def serve() -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return serve


router.add_api_route("/", _serve("index.html"), include_in_schema=False)
for _name in sorted(entry.name for entry in _STATIC.iterdir() if entry.name != "index.html"):
    router.add_api_route(f"/dashboard/{_name}", _serve(_name), include_in_schema=False)
