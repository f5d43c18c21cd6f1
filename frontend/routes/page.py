"""`GET /`: the dashboard, one page without a build step or outside assets."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter()


@cache
def _page() -> bytes:
    return (files("frontend") / "dashboard" / "index.html").read_bytes()


@router.get("/", include_in_schema=False)
async def dashboard() -> Response:
    return Response(_page(), media_type="text/html; charset=utf-8")
