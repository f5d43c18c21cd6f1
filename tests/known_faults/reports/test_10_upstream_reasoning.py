"""A reasoning model streams `reasoning_content` (or `reasoning`) for minutes before its answer.

Today such a stream counts as silence: the inactivity timeout and the limit for the first token end it, and the
reasoning is thrown away. Expected: every delta is a sign of life and the first event, and the text reaches the client.
The same as edge/d_upstream.
Source: router-for-me/CLIProxyAPI#4704, bitrouter/bitrouter#448, JetBrains/koog#2148, tashfeenahmed/freellmapi#776.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Call, Upstream, chunk

THOUGHTS, PAUSE_SECS = 7, 0.2  # longer together than the shortest timeout there is, a second
THINKS = "10: thinks before it answers"
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])


def thinking(field: str, pause_secs: float) -> Iterator[bytes]:
    yield STREAM_HEAD
    for number in range(THOUGHTS):
        yield chunk({field: f"thought{number} "})
        time.sleep(pause_secs)
    yield chunk({"content": "42"}, "stop") + DONE


@pytest.fixture
def thinks(upstream: Upstream) -> Upstream:
    def script(call: Call) -> Iterator[bytes]:
        return thinking("reasoning_content", PAUSE_SECS)

    upstream.play(THINKS, script)
    return upstream


@BOTH
async def test_reasoning_is_not_silence(site: Site, thinks: Upstream, model: str, stream: bool) -> None:
    await site.worker(model, "openai", openai_base_url=thinks.url, backend_stream_timeout_secs=1)
    answer = await site.ask(model, THINKS, stream=stream)
    assert "response_timeout" not in answer.text
    assert '"42"' in answer.text
    assert answer.status_code == 200


async def test_the_first_reasoning_ends_the_wait_for_the_first_token(site: Site, thinks: Upstream) -> None:
    answer = await site.ask("upstream", THINKS, headers={"X-First-Token-Timeout-Secs": "1"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@BOTH
async def test_the_reasoning_reaches_the_client(site: Site, upstream: Upstream, field: str, stream: bool) -> None:
    text = f"10: {field}"
    upstream.play(text, lambda call: thinking(field, pause_secs=0.0))
    answer = await site.ask("upstream", text, stream=stream)
    assert answer.status_code == 200
    assert '"42"' in answer.text
    assert "thought3" in answer.text
