"""A closed terminal or a lost ssh session sends SIGHUP, which must drain a frontend as SIGTERM does.

What is running is finished first.
Source: no single report; it is the habit of sshd, of terminals and of scripts that reload a service.
"""

from __future__ import annotations

import signal

from tests.known_faults.reports.kit import Site, chat, ended
from tests.sse import error_of, post, text_of

WORDS = "word " * 20  # a second of the echo engine


async def test_a_frontend_drains(site: Site) -> None:
    frontend = await site.another_frontend(drain_timeout_secs=10.0)
    async with post(site.http, frontend.url, chat("echo", WORDS, stream=True)) as stream:
        await stream.read_tokens(2)
        frontend.signal(signal.SIGHUP)
        events = await stream.read()
    assert error_of(events) is None
    assert text_of(events).split() == WORDS.split()
    assert await ended(frontend) == 0
