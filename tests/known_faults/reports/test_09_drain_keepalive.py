"""While a frontend drains, every answer must say `Connection: close`.

A Kubernetes Service balances connections, not calls: a client that keeps its connection is refused again and again by
the one replica that leaves, until its retries are spent. Today the connections stay open. Expected: each answer of a
draining frontend closes its connection.
Source: envoyproxy/gateway#4205, quarkusio/quarkus#18890, kubernetes/ingress-nginx#8094.
"""

from __future__ import annotations

import asyncio
import secrets
import signal

import httpx2
import pytest

from tests.known_faults.reports.kit import Site, chat
from tests.sse import post
from tests.waiting import wait_until


@pytest.mark.xfail(strict=True, reason="09: the answers of a draining frontend keep their connections open")
async def test_every_answer_of_a_draining_frontend_closes_its_connection(site: Site) -> None:
    leaving = await site.another_frontend(drain_timeout_secs=10.0)
    completions, rid = leaving.url + "/v1/chat/completions", f"drain-{secrets.token_hex(4)}"
    async with post(site.http, leaving.url, chat("echo", "word " * 400, stream=True), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        leaving.signal(signal.SIGTERM)

        async def drains() -> bool:
            return (await site.http.get(leaving.url + "/ready")).status_code == 503

        await wait_until(drains, what="a draining frontend")
        answers = {
            "the refused call": await site.http.post(completions, json=chat("echo")),
            "another call": await site.http.get(leaving.url + "/v1/models"),
            "the probe": await site.http.get(leaving.url + "/ready"),
        }
        await site.http.post(f"{site.url}/v1/requests/{rid}/cancel")
        await stream.read()
    async with asyncio.timeout(10):
        await leaving.process.wait()
    assert answers["the refused call"].status_code == 503
    assert [what for what, answer in answers.items() if not _closes(answer)] == []


def _closes(answer: httpx2.Response) -> bool:
    return bool(answer.headers.get("connection", "").lower() == "close")
