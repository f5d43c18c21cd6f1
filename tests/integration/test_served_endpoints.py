"""The openai engine finds out which endpoints its upstream serves, and starts no work there."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.errors import NotConnected
from lifecycle.execution.offered_endpoints import offered_endpoints
from tests.upstream import Exchange, Script, Serve
from tests.waiting import wait_until
from worker.engines.openai import OpenAIEngine

V1 = {
    "/v1/chat/completions": "chat_completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
}
FORWARDS = ["embeddings", "rerank", "score", "tokenize", "detokenize"]


def serving(*paths: str, absent: str = "404 Not Found") -> Script:
    """Have these paths, and complain there about what was sent."""

    async def script(exchange: Exchange) -> None:
        if exchange.path in paths:
            await exchange.answer({"error": {"message": "a field is missing"}}, "400 Bad Request")
        else:
            await exchange.answer({"error": {"message": "not here"}}, absent)

    return script


@pytest.mark.parametrize("absent", ["404 Not Found", "501 Not Implemented"])
@pytest.mark.parametrize("paths", [["/v1/embeddings", "/tokenize"], ["/v1/completions"], ["/v1/rerank", "/v1/score"]])
async def test_an_upstream_tells_its_endpoints(serve: Serve, paths: list[str], absent: str) -> None:
    upstream, engine = await serve(serving(*paths, absent=absent))
    assert list(engine.endpoints) == ["chat_completions", "completions"]
    await engine.startup()
    named = V1 | {"/tokenize": "tokenize"}
    assert set(engine.endpoints) == {named[path] for path in paths}
    assert {name for name, how in offered_endpoints(engine).items() if how == "native"} == set(engine.endpoints)
    assert all(exchange.body == {} for exchange in upstream.exchanges)
    assert all(exchange.headers["authorization"] == "Bearer secret" for exchange in upstream.exchanges)


async def test_a_path_that_is_for_post_is_not_posted_to(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.path not in V1:
            await exchange.answer({"detail": "Not Found"}, "404 Not Found")
        else:
            await exchange.answer({"detail": "Method Not Allowed"}, "405 Method Not Allowed")

    upstream, engine = await serve(script)
    await engine.startup()
    assert set(engine.endpoints) == set(V1.values())
    assert not [exchange for exchange in upstream.exchanges if exchange.method == "POST" and exchange.path in V1]


async def test_an_upstream_that_answers_everything_is_asked_once(serve: Serve) -> None:
    """It has no path that could be told apart, so what can be translated is translated."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer({"choices": []})

    upstream, engine = await serve(script)
    await engine.startup()
    assert [exchange.method for exchange in upstream.exchanges] == ["GET", "POST"]
    assert list(engine.endpoints) == ["chat_completions", "completions", *FORWARDS]
    assert offered_endpoints(engine)["responses"] == "translated"


async def test_a_stream_is_not_read(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()

    upstream, engine = await serve(script)
    await engine.startup()
    await wait_until(lambda: len(upstream.left) == 2, what="two closed connections")
    assert "embeddings" in engine.endpoints


@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Service Unavailable"])
async def test_an_upstream_that_does_not_tell_is_left_alone_after_a_while(serve: Serve, status: str) -> None:
    async def script(exchange: Exchange) -> None:
        models = exchange.path == "/v1/models"
        await exchange.answer({"data": [{"id": "m"}]} if models else {}, "200 OK" if models else status)

    upstream, engine = await serve(script)
    await engine.startup()
    for _ in range(5):
        await engine.health()
        await _settled(engine)
    assert list(engine.endpoints) == ["chat_completions", "completions"]
    assert len([exchange for exchange in upstream.exchanges if exchange.method == "POST"]) == 3


async def test_an_upstream_is_asked_again_after_an_outage(serve: Serve) -> None:
    state: dict[str, Any] = {"away": True, "path": "/v1/embeddings"}

    async def script(exchange: Exchange) -> None:
        if state["away"]:
            exchange.writer.close()
        elif exchange.path == "/v1/models":
            await exchange.answer({"data": [{"id": "m"}]})
        else:
            await serving(state["path"])(exchange)

    _, engine = await serve(script)
    with pytest.raises(NotConnected):
        await engine.health()
    state["away"] = False
    await engine.health()
    await wait_until(lambda: list(engine.endpoints) == ["embeddings"], what="the first upstream's endpoints")
    state.update(away=True, path="/v1/chat/completions")
    with pytest.raises(NotConnected):
        await engine.health()
    assert list(engine.endpoints) == ["embeddings"]
    state["away"] = False
    await engine.health()
    await wait_until(lambda: list(engine.endpoints) == ["chat_completions"], what="the second upstream's endpoints")


async def test_an_upstream_that_is_away_at_the_start_is_assumed_to_chat() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9/v1")
    try:
        await engine.startup()
        assert list(engine.endpoints) == ["chat_completions", "completions"]
    finally:
        await engine.aclose()


async def _settled(engine: OpenAIEngine) -> None:
    """Wait until the engine asks nothing."""
    await wait_until(lambda: engine._served._learning is None or engine._served._learning.done(), what="no question")
