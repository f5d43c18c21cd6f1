"""A FastAPI application that tracks what it streams, for the tests: behind middlewares, and mounted under another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware

import lifecycle


async def count(context: lifecycle.EngineContext) -> AsyncIterator[Any]:
    """Yield 1, 2, … until it is stopped."""
    number = 0
    while not context.is_stopped:
        number += 1
        yield {"n": number}
        await asyncio.sleep(0.01)


async def three() -> AsyncIterator[Any]:
    """Yield three events."""
    for number in (1, 2, 3):
        yield {"n": number}


async def broken() -> AsyncIterator[Any]:
    """Fail after one event."""
    yield "first"
    raise lifecycle.EngineError("no more", status=422, code="no_more")


def add_routes(app: FastAPI) -> FastAPI:
    """Add the routes of the application."""

    @app.post("/three")
    async def _three(tracked: lifecycle.fastapi.Tracked) -> Response:
        return await tracked.stream(three(), model="three")

    @app.post("/count")
    async def _count(tracked: lifecycle.fastapi.Tracked, on_disconnect: str = "cancel") -> Response:
        return await tracked.stream(count, model="count", on_disconnect=on_disconnect)

    @app.post("/broken")
    async def _broken(tracked: lifecycle.fastapi.Tracked) -> Response:
        return await tracked.stream(broken(), model="broken")

    app.include_router(lifecycle.fastapi.router())
    return app


def make() -> FastAPI:
    """Return the application, connected by its lifespan."""
    return add_routes(FastAPI(lifespan=lifecycle.fastapi.lifespan))


def behind_middlewares() -> FastAPI:
    """Return the application behind CORS and a BaseHTTPMiddleware, which pass on what it sends through queues."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response

    app = make()
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    return app


def mounted() -> FastAPI:
    """Return an application that has the other one mounted under /inner."""
    outer = FastAPI(lifespan=lifecycle.fastapi.lifespan)
    outer.mount("/inner", add_routes(FastAPI()))
    return outer
