"""Workers with several models, and with those that their upstream lists, as processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import running
from tests.conftest import MakeSettings
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk
from tests.upstream import Serve, playing
from tests.waiting import wait_until


def chat(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_worker_serves_every_model_it_is_given(make_settings: MakeSettings, tmp_path: Path) -> None:
    async with running(make_settings(), tmp_path, workers=0) as cluster:
        await cluster.worker(("first", "second"), "echo")
        assert {model["id"] for model in (await cluster.get("/v1/models"))["data"]} == {"first", "second"}
        for model in ("first", "second"):
            answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=chat(model))
            assert (answer.status_code, answer.json()["model"]) == (200, model)


@pytest.mark.parametrize("models", [(), ("upstream",)])
async def test_the_upstreams_max_model_len_is_shown(
    make_settings: MakeSettings, tmp_path: Path, serve: Serve, models: tuple[str, ...]
) -> None:
    listed = b'{"data":[{"id":"upstream","max_model_len":8192},{"id":"other"}]}'
    upstream, _ = await serve(playing(listed, kind="application/json"))
    async with running(make_settings(), tmp_path, workers=0) as cluster:
        await cluster.worker(models, "openai", openai_base_url=upstream.url)
        await cluster.worker("echo")
        expected = {"upstream": 8192, "echo": None} | ({} if models else {"other": None})

        async def is_shown() -> bool:
            data = (await cluster.get("/v1/models"))["data"]
            return {model["id"]: model.get("max_model_len") for model in data} == expected

        await wait_until(is_shown)
        assert (await cluster.get("/v1/models/upstream"))["max_model_len"] == 8192
        assert "max_model_len" not in await cluster.get("/v1/models/echo")


async def test_without_a_model_a_worker_serves_what_its_upstream_lists(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with Upstream() as upstream:
        upstream.play("hi", lambda call: [STREAM_HEAD, chunk({"content": "hello"}, "stop"), DONE])
        async with running(make_settings(), tmp_path, workers=0) as cluster:
            await cluster.worker((), "openai", openai_base_url=upstream.url)
            assert [model["id"] for model in (await cluster.get("/v1/models"))["data"]] == ["upstream"]
            answer = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=chat("upstream"))
            assert answer.json()["choices"][0]["message"]["content"] == "hello"
