"""A 4xx of the upstream is the caller's fault and must stay one; 429 and 503 must stay what they are.

Today everything becomes 500, so that the SDKs send a prompt that is too long three times, and Retry-After is lost.
Expected: the status, the `code` and the Retry-After of the upstream (502 is told as 503).
The same as edge/d_upstream.
Source: musistudio/claude-code-router#1799, james-6-23/codex2api#310, ikawrakow/ik_llama.cpp#2420, hank9999/kiro.rs#70.
"""

from __future__ import annotations

import json
from typing import Any

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import Upstream, whole

PAGE = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


def refusal(status: str, message: str, retry_after: str = "", **fields: Any) -> bytes:
    headers = {"Retry_After": retry_after} if retry_after else {}
    return whole(status, json.dumps({"error": {"message": message, **fields}}), **headers)


CONTEXT = refusal(
    "400 Bad Request",
    "maximum context length is 8 tokens",
    type="invalid_request_error",
    param="messages",
    code="context_length_exceeded",
)
MODEL = refusal("404 Not Found", "model not loaded", code="model_not_found")
BUSY = refusal("429 Too Many Requests", "slow down", retry_after="7")
LOADING = refusal("503 Service Unavailable", "loading model", retry_after="9")
PROXY = whole("502 Bad Gateway", PAGE, kind="text/html")


async def test_too_long_a_prompt_stays_the_callers_fault(site: Site, upstream: Upstream) -> None:
    upstream.play("13: context", lambda call: [CONTEXT])
    answer = await site.ask("upstream", "13: context")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")


async def test_an_unknown_model_of_the_upstream_is_404(site: Site, upstream: Upstream) -> None:
    upstream.play("13: model", lambda call: [MODEL])
    answer = await site.ask("upstream", "13: model")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_429_keeps_its_retry_after(site: Site, upstream: Upstream) -> None:
    upstream.play("13: busy", lambda call: [BUSY])
    answer = await site.ask("upstream", "13: busy")
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, "7")


async def test_503_keeps_its_retry_after(site: Site, upstream: Upstream, model: str) -> None:
    upstream.play("13: loading", lambda call: [LOADING])
    await site.worker(model, "openai", openai_base_url=upstream.url)  # one of its own: it may count as unhealthy then
    answer = await site.ask(model, "13: loading")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 9


async def test_a_proxys_page_is_not_the_message(site: Site, upstream: Upstream, model: str) -> None:
    upstream.play("13: proxy", lambda call: [PROXY])
    await site.worker(model, "openai", openai_base_url=upstream.url)
    answer = await site.ask(model, "13: proxy")
    assert "<html" not in answer.text
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
