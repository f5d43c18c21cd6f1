"""An answer must not fail because of framing that server-sent events allow, or because of data after its end.

In 0.1, a byte order mark, bare carriage returns, a space behind [DONE] and anything unexpected behind `finish_reason`
fail a complete answer. Expected: the answer, whatever the framing.
Source: mistralai/mistral-vibe#793 (`[DONE] `), agentic-os-org/ANOLISA#2209 (BOM, bare CR), SamSaffron/term-llm#487.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk

ANSWER = chunk({"content": "hi "}) + chunk({"content": "there"}, "stop")
PLAIN = ANSWER + DONE


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(PLAIN.replace(b"\n", b"\r"), id="bare CR"),
        pytest.param(b"\xef\xbb\xbf" + PLAIN, id="byte order mark"),
        pytest.param(PLAIN.replace(b"data: ", b"data:"), id="no space"),
        pytest.param(ANSWER + b"data: [DONE] \n\n", id="[DONE] and a space"),
        pytest.param(ANSWER + b"data: bye\n\n" + DONE, id="junk behind the finish reason"),
        pytest.param(ANSWER + b"event: error\ndata: late\n\n" + DONE, id="an error behind the finish reason"),
        pytest.param(b": ping\n\n" + ANSWER + b": ping\n\n" + DONE, id="comments"),
    ],
)
async def test_a_complete_answer_arrives_whatever_its_framing(
    site: Site, upstream: Upstream, request: pytest.FixtureRequest, sent: bytes
) -> None:
    text = f"17: {request.node.callspec.id}"
    upstream.play(text, lambda call: [STREAM_HEAD, sent])
    answer = await site.ask("upstream", text)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "hi there"
