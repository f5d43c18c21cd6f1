"""An offer of `Upgrade: h2c` must be ignored and the body read. Every stock JDK HttpClient sends one on cleartext HTTP.

Today such a call is answered 400, because the body is not read. Expected: the answer that the call gets without the
offer, and a connection that serves the next call.
The same as edge/c_http.
Source: Kludex/uvicorn#2722, vllm-project/vllm#57203, langchain4j/langchain4j#3682.
"""

from __future__ import annotations

import json

import pytest

from tests.connection import connected
from tests.known_faults.reports.kit import Site, chat

BODY = json.dumps(chat("echo")).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
WITH_LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
END_OF_ANSWER = b"}}"  # of the usage and the whole

pytestmark = pytest.mark.xfail(strict=True, reason="01: a call that offers an upgrade to h2c is answered 400")


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([WITH_LENGTH + BODY], id="length, one segment"),
        pytest.param([WITH_LENGTH, BODY], id="length, two segments"),
        pytest.param([CHUNKED + CHUNKS], id="chunked, one segment"),
        pytest.param([CHUNKED, CHUNKS], id="chunked, two segments"),
    ],
)
async def test_the_body_behind_an_offer_is_read(site: Site, segments: list[bytes]) -> None:
    async with connected(site.port) as connection:
        for segment in segments:
            await connection.send(segment)
            await connection.taken()
        answer = await connection.read_until(END_OF_ANSWER)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"hello world" in answer


async def test_the_connection_serves_the_next_call(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(WITH_LENGTH + BODY)
        assert (await connection.read_until(END_OF_ANSWER)).startswith(b"HTTP/1.1 200 ")
        await connection.send(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await connection.read_until(b"HTTP/1.1 200 ", count=2)
