"""One client's name cannot take all readers of a frontend, nor fill its memory with bodies that never arrive."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import orjson
import pytest

from frontend.edge.client_shares import BODY_SIZES, BODY_SIZES_IN_ALL, MOST_BODIES
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.tracking.admission import AdmittedRequest
from lifecycle.types import CancelMode, Labels, Limits, OnDisconnect
from tests.conftest import MakeSettings
from tests.connection import connected
from tests.edge import EdgeServer, edge_server
from tests.keys import Keys
from tests.waiting import wait_until

MAX_READERS = 5  # one is of the client that brought the request
SHARE = MAX_READERS // 2
BODY_BYTES = 1024

Serve = Callable[..., AbstractAsyncContextManager[EdgeServer]]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.make(tmp_path)


@pytest.fixture
def serve(make_settings: MakeSettings, keys: Keys) -> Serve:
    """Start a frontend with these keys, or all of them."""

    def start(*names: str) -> AbstractAsyncContextManager[EdgeServer]:
        lines = [line for line in keys.file.read_text().splitlines() if not names or line.startswith(names)]
        return edge_server(
            make_settings(
                api_keys=",".join(line for line in lines if not line.startswith("#")),
                max_readers=MAX_READERS,
                max_body_bytes=BODY_BYTES,
                queue_without_workers=True,
            )
        )

    return start


@asynccontextmanager
async def request_of(edge: EdgeServer, owner: str) -> AsyncIterator[str]:
    """Have a request that nobody runs. Yields its id; its own reader is one of the frontend's."""
    rid = f"share-{secrets.token_hex(4)}"
    labels, limits = Labels("nobody", "chat_completions", "stream"), Limits(0, 0, 0)
    call = AdmissionRequest(rid, labels, orjson.dumps({}), OnDisconnect.CONTINUE, 0.0, limits, owner=owner)
    admitted: AdmittedRequest = await edge.tracker.admit(call)
    try:
        yield rid
    finally:
        admitted.connection.disarm()
        admitted.connection.close()
        await edge.tracker.cancel(rid, CancelMode.KILL, "the test is over", 1.0)


async def read(edge: EdgeServer, stack: AsyncExitStack, rid: str, headers: dict[str, str]) -> httpx2.Response:
    """Open the stream of a request, and keep it open with the stack if it was accepted."""
    answer = await stack.enter_async_context(edge.http.stream("GET", f"/v1/requests/{rid}/stream", headers=headers))
    if answer.status_code != 200:
        await answer.aread()
    return answer


async def test_one_client_has_half_of_the_readers(serve: Serve, keys: Keys) -> None:
    async with serve() as edge, request_of(edge, "acme") as rid:
        async with AsyncExitStack() as stack:
            opened = [await read(edge, stack, rid, keys.bearer("acme")) for _ in range(SHARE + 1)]
            assert [answer.status_code for answer in opened] == [200] * SHARE + [429]
            error = opened[-1].json()["error"]
            assert (error["code"], opened[-1].headers.get("x-should-retry")) == ("reader_limit", None)
            operators = [await read(edge, stack, rid, keys.bearer("ops")) for _ in range(SHARE + 1)]
            assert [answer.status_code for answer in operators] == [200] * SHARE + [503]
            assert (await edge.http.get("/v1/requests", headers=keys.bearer("acme"))).status_code == 200

        async def returns() -> bool:
            async with AsyncExitStack() as stack:
                return (await read(edge, stack, rid, keys.bearer("acme"))).status_code == 200

        await wait_until(returns, what="a share that is free again")


async def test_a_single_name_has_the_limit_of_the_frontend(serve: Serve, keys: Keys) -> None:
    async with serve("acme") as edge, request_of(edge, "acme") as rid, AsyncExitStack() as stack:
        opened = [await read(edge, stack, rid, keys.bearer("acme")) for _ in range(MAX_READERS)]
    assert [answer.status_code for answer in opened] == [200] * (MAX_READERS - 1) + [503]


@asynccontextmanager
async def half_bodies(edge: EdgeServer, keys: Keys, name: str, number: int, size: int) -> AsyncIterator[None]:
    """Have so many connections whose call misses the last byte of its body."""
    (authorization,) = keys.bearer(name).values()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
    call = f"{head}Content-Length: {size + 1}\r\n\r\n".encode() + b" " * size
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(edge.port)) for _ in range(number)]
        await asyncio.gather(*(connection.send(call) for connection in opened))
        yield


async def answer_to_a_late_body(edge: EdgeServer, keys: Keys, name: str) -> int:
    """Send a call whose body comes in two parts. Return the status."""

    async def body() -> AsyncIterator[bytes]:
        yield b"{" * 300
        yield b"}" * 300

    call = "/v1/chat/completions"
    return (await edge.http.post(call, content=body(), headers=keys.bearer(name))).status_code


@pytest.mark.parametrize(
    ("number", "size"),
    [pytest.param(MOST_BODIES, 1, id="requests"), pytest.param(BODY_SIZES, BODY_BYTES - 1, id="bytes")],
)
async def test_one_client_has_a_share_of_unfinished_bodies(serve: Serve, keys: Keys, number: int, size: int) -> None:
    async def refused() -> bool:
        return await answer_to_a_late_body(edge, keys, "acme") == 429

    async def accepted() -> bool:
        return await answer_to_a_late_body(edge, keys, "acme") == 400

    async with serve() as edge:
        async with half_bodies(edge, keys, "acme", number, size):
            await wait_until(refused, what="a share that is used up")
            for other in ("globex", "ops"):
                assert await answer_to_a_late_body(edge, keys, other) == 400
        await wait_until(accepted, what="a share that is free again")


async def test_an_operator_has_no_share_of_bodies(serve: Serve, keys: Keys) -> None:
    async with serve() as edge, half_bodies(edge, keys, "ops", MOST_BODIES, 1):
        assert await answer_to_a_late_body(edge, keys, "ops") == 400


async def test_all_unfinished_bodies_have_a_limit_together(serve: Serve, keys: Keys) -> None:
    async def status(name: str) -> int:
        return await answer_to_a_late_body(edge, keys, name)

    async with serve() as edge:
        async with half_bodies(edge, keys, "ops", BODY_SIZES_IN_ALL, BODY_BYTES - 1):

            async def refused() -> bool:
                return await status("ops") == await status("acme") == 503

            await wait_until(refused, what="a limit that is reached")

        async def accepted() -> bool:
            return await status("acme") == 400

        await wait_until(accepted, what="room that is free again")
