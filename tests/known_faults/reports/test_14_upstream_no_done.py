"""After `finish_reason` everything is said. What the upstream does then must not hold the request.

In 0.1, an upstream that then neither sends [DONE] nor closes, and keeps its heartbeat comments coming, holds the
request until a timeout fails it. Expected: the complete answer is delivered, soon.
Source: maximhq/bifrost#6784 and #7115, musistudio/claude-code-router#1271.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.known_faults.reports.kit import Site, within
from tests.known_faults.reports.upstream import STREAM_HEAD, Call, Upstream, chunk

SOON_SECS = 2.0
TEXT = "14: no [DONE]"


def finished_but_open(call: Call) -> Iterator[bytes]:
    """Say everything, then send comments until the client leaves."""
    yield STREAM_HEAD + chunk({"content": "all said"}) + chunk({}, "stop")
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        time.sleep(0.1)
        yield b": ping\n\n"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
async def test_an_answer_ends_with_its_finish_reason(site: Site, upstream: Upstream, stream: bool) -> None:
    upstream.play(TEXT, finished_but_open)
    answer = await within(SOON_SECS, site.ask("upstream", TEXT, stream=stream), "an answer that was finished")
    assert answer.status_code == 200
    assert "all said" in answer.text
    assert '"error"' not in answer.text
