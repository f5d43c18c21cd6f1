"""An upstream's report of its answer must reach the client: the token counts, their details, and its tools.

Today the completion tokens are counted by chunks, details of the usage are dropped, and a call with tools is refused.
Its findings on status codes and on reasoning are the same as the reports 13 and 10, and the dead upstream of
d_blackhole is the same as the report 20.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Call, Upstream, chunk

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 20,
    "total_tokens": 32,
    "prompt_tokens_details": {"cached_tokens": 8},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def multi(upstream: Upstream) -> str:
    """Play five chunks of several tokens each. Return the text that asks for them."""
    text = "d_upstream: several tokens in a chunk"

    def script(call: Call) -> list[bytes]:
        pieces = [chunk({"content": f"piece {number} "}) for number in range(5)]
        return [STREAM_HEAD, *pieces, chunk({}, "stop"), chunk(usage=USAGE), DONE]

    upstream.play(text, script)
    return text


async def test_the_text_is_whole(site: Site, multi: str) -> None:
    answer = await site.ask("upstream", multi)
    assert answer.json()["choices"][0]["message"]["content"] == "piece 0 piece 1 piece 2 piece 3 piece 4 "


async def test_the_completion_tokens_are_the_upstreams(site: Site, multi: str) -> None:
    assert (await site.ask("upstream", multi)).json()["usage"]["completion_tokens"] == USAGE["completion_tokens"]


async def test_the_cached_tokens_are_passed_on(site: Site, multi: str) -> None:
    usage = (await site.ask("upstream", multi)).json()["usage"]
    assert usage.get("prompt_tokens_details") == USAGE["prompt_tokens_details"]


async def test_tools_reach_the_upstream(site: Site, upstream: Upstream) -> None:
    text = "d_upstream: tools"
    upstream.play(text, lambda call: [STREAM_HEAD, chunk({"content": "fine"}, "stop"), DONE])
    answer = await site.ask("upstream", text, tools=[TOOL])
    assert answer.status_code == 200, answer.text
    assert b'"tools"' in upstream.calls_of(text)[-1].body
