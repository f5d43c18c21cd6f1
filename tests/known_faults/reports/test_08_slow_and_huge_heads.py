"""A connection that never completes its head must be dropped, and a huge head refused, both before any key.

Today a silent connection stays open for ever and a head may grow without a limit. Expected: 431 for a head beyond
64 KiB (414 for a URL), and an end to connections whose head or body does not come. The limits for time are 30 s and
60 s, so the tests shorten them by the settings LIFECYCLE_HEAD_TIMEOUT_SECS and LIFECYCLE_BODY_TIMEOUT_SECS, which the
mending is to add (or to name otherwise, here too).
The same as edge/c_headers_dos and edge/fix_heads.
Source: Kludex/uvicorn#157, xorbitsai/inference#5213 (CVE-2007-6750).
"""

from __future__ import annotations

import asyncio

import pytest

from tests.connection import Connection, connected
from tests.known_faults.reports.kit import Site, port_of

QUICK = {"LIFECYCLE_HEAD_TIMEOUT_SECS": "0.3", "LIFECYCLE_BODY_TIMEOUT_SECS": "0.3"}
PIECE = b"a" * 1_000_000
BEGINNING = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"
UNFINISHED = {
    "nothing": b"",
    "half a head": BEGINNING,
    "half a body": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
}


@pytest.mark.xfail(strict=True, reason="08: a connection that does not send its call stays open for ever")
async def test_a_connection_that_does_not_send_its_call_is_closed(site: Site) -> None:
    port = port_of(await site.another_frontend(env=QUICK))

    async def outcome(sent: bytes) -> str:
        async with connected(port) as connection:
            await connection.send(sent)
            try:
                received = await connection.read_to_end(within_secs=2.0)
            except AssertionError as still_open:
                return str(still_open)
        refused = received.startswith(b"HTTP/1.1 408 ")
        return "closed" if refused or not received else f"answered {received[:100]!r}"

    outcomes = await asyncio.gather(*(outcome(sent) for sent in UNFINISHED.values()))
    assert dict(zip(UNFINISHED, outcomes, strict=True)) == dict.fromkeys(UNFINISHED, "closed")


@pytest.mark.xfail(strict=True, reason="08: a head beyond 64 KiB is served")
async def test_a_head_beyond_64_kib_is_refused(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(BEGINNING + b"X-Long: " + b"a" * 66_000 + b"\r\n\r\n")
        assert (await connection.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")


@pytest.mark.xfail(strict=True, reason="08: a URL beyond 64 KiB is served, or refused by a wrong status")
async def test_a_url_beyond_64_kib_is_refused(site: Site) -> None:
    async with connected(site.port) as connection:
        await connection.send(b"GET /live?" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await connection.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 414 ")


@pytest.mark.xfail(strict=True, reason="08: a head of many megabytes is taken and served")
async def test_a_head_of_many_megabytes_is_not_taken(site: Site) -> None:
    async with connected(site.port) as connection:
        try:
            await connection.send(BEGINNING)
            await _send_header_fields(connection, megabytes=16)
            await connection.send(b"\r\n")
            received = await connection.read_until(b"\r\n\r\n")
        except OSError:
            return  # refused before it was complete
    assert received.startswith(b"HTTP/1.1 431 ")


async def _send_header_fields(connection: Connection, megabytes: int) -> None:
    """Send so many megabytes of header fields. Raises OSError when the server has closed."""
    for number in range(megabytes):
        await connection.send(b"X-%d: " % number + PIECE + b"\r\n")
