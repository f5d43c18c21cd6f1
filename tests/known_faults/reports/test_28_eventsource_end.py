"""A browser's EventSource that has read an answer to its end must be told to stop; only a 204 does that.

An answer of 200 without events would make the page reconnect with its Last-Event-ID for ever. The answer is 204 when
the request has ended and the given id is that of its last event.
Source: aio-libs/aiohttp-sse#1, EventSource/eventsource#14, remorses/kimaki#126; WHATWG, server-sent events.
"""

from __future__ import annotations

import secrets

from tests.known_faults.reports.kit import Site
from tests.sse import resume


async def test_a_reader_that_knows_the_last_event_is_answered_204(site: Site) -> None:
    rid = f"eventsource-{secrets.token_hex(4)}"
    assert (await site.ask("echo", headers={"X-Request-Id": rid})).status_code == 200
    async with resume(site.http, site.url, rid) as first:
        events = await first.read()
    last = [event.id for event in events if event.id][-1]
    async with resume(site.http, site.url, rid, after=last or "") as again:
        assert (again.response.status_code, await again.read()) == (204, [])
