"""The fair queue as its users see it: priorities, what is told of waits, limits, deadlines, and keys that change."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

import lifecycle
from lifecycle.settings import Settings, as_environment
from tests.conftest import MakeSettings
from tests.queue_scene import MODEL, Scene, keys_of, open_scene
from tests.sse import chat
from tests.waiting import wait_until


@pytest.fixture
def scene_of(make_settings: MakeSettings, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def scene(**settings: Any) -> AsyncIterator[Scene]:
        given = {"api_keys": str(tmp_path / "keys"), "concurrency": 1, "heartbeat_secs": 0.5, "lease_secs": 5.0}
        async with open_scene(make_settings(**given | settings), tmp_path, keys_of()) as scene:
            yield scene

    return scene


async def run_cli(settings: Settings, *args: str) -> str:
    """Return what a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lifecycle.cli.main",
        *args,
        env=as_environment(settings),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_requests_start_by_priority_within_the_range_of_their_key(scene_of: Any) -> None:
    async with scene_of() as scene:
        await scene.wait("globex", "running", "running")
        assert (await scene.wait("globex", "clamped", priority=-5))["priority"] == 0
        assert (await scene.wait("acme", "late", priority=7))["priority"] == 7
        first = await scene.wait("acme", "first", priority=-99)
        assert first["priority"] == -10
        assert [(await scene.record(rid))["queue_position"] for rid in ("first", "clamped", "late")] == [1, 2, 3]
        answers = await scene.release()
        assert {answer.status_code for answer in answers} == {200}
        ended = [await scene.record(rid) for rid in ("running", "first", "clamped", "late")]
        assert sorted(ended, key=lambda record: record["started_at"]) == ended
        assert "queue_position" not in ended[-1]


async def test_the_sdk_sends_a_priority_and_a_wrong_one_is_named(scene_of: Any) -> None:
    async with scene_of() as scene:
        scene.gate.touch()
        async with scene.sdk("acme") as sdk:
            ask = sdk.chat.completions.create
            messages: Any = [{"role": "user", "content": str(scene.gate)}]
            done = await ask(model=MODEL, messages=messages, extra_body={"priority": -3})
            assert (await scene.record(done.id))["priority"] == -3
            with pytest.raises(openai.BadRequestError) as refused:
                await ask(model=MODEL, messages=messages, extra_body={"priority": "high"})
        assert (refused.value.param, refused.value.status_code) == ("priority", 400)


@pytest.mark.parametrize(("forwards", "seen"), [(False, None), (True, 9)])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("x", "told", stream=False)),
        ("/v1/completions", {"model": "told", "prompt": "x"}),
        ("/v1/responses", {"model": "told", "input": "x"}),
        ("/v1/messages", {"model": "told", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}),
    ],
)
async def test_the_engine_gets_the_priority_only_if_that_is_wanted(
    scene_of: Any, forwards: bool, seen: int | None, path: str, body: dict[str, Any]
) -> None:
    async with scene_of() as scene:
        await scene.cluster.worker("told", "tests.engines:shown", forward_priority=forwards)
        answer = await scene.cluster.http.post(
            scene.url + path, json=body | {"priority": 9}, headers=scene.bearer("acme")
        )
        assert answer.status_code == 200, answer.text
        texts = [json.loads(text) for text in _texts(answer.json()) if text.startswith("{")]
        assert [text.get("priority") for text in texts] == [seen]


def _texts(value: Any) -> list[str]:
    """Return all strings in a JSON value."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _texts(child)]


async def test_the_queue_is_told_the_same_everywhere_and_to_operators_only(scene_of: Any) -> None:
    async with scene_of() as scene:
        await scene.wait("globex", "running", "running")
        await scene.wait("acme", "a0")
        await scene.wait("acme", "a1")
        await scene.wait("globex", "g0")
        (told,) = (await scene.cluster.get("/v1/queue"))["data"]
        assert (told["model"], told["queued"]) == (MODEL, 3)
        assert told["drain_per_sec"] == pytest.approx(1 / 60, abs=0.01)
        for model, expected in ((MODEL, [MODEL]), ("another", []), ("", [MODEL])):
            shown = (await scene.cluster.get(f"/v1/queue?model={model}"))["data"]
            assert [queue["model"] for queue in shown] == expected
        owners = {owner["owner"]: (owner["weight"], owner["queued"]) for owner in told["owners"]}
        assert owners == {"acme": (4.0, 2), "globex": (1.0, 1)}
        for name, status in (("acme", 403), ("ops", 200)):
            answer = await scene.cluster.http.get(scene.url + "/v1/queue", headers=scene.bearer(name))
            assert answer.status_code == status

        settings = scene.cluster.settings
        shape = [(o["owner"], o["queued"]) for o in told["owners"]]
        async with lifecycle.AsyncClient(scene.url, scene.keys["ops"]) as client:
            (over_http,) = await client.queue()
            assert (await client.get("a1")).queue_position is not None
        async with lifecycle.AsyncClient(redis_url=settings.redis_url, namespace=settings.namespace) as client:
            (over_redis,) = await client.queue()
            assert (await client.get("a1")).queue_position is not None
        for queue in (over_http, over_redis):
            assert [(o.owner, o.queued) for o in queue.owners] == shape
        shown = await run_cli(settings, "queue", "--json")
        assert [(o["owner"], o["queued"]) for o in json.loads(shown)["data"][0]["owners"]] == shape
        table = await run_cli(settings, "queue")
        assert "acme" in table
        assert "total" in table
        await scene.release()


async def test_a_full_queue_is_its_owners_own_and_says_when_to_come_back(scene_of: Any) -> None:
    async with scene_of(queue_limit=2) as scene:
        await scene.wait("globex", "running", "running")
        for rid in ("g0", "g1"):
            await scene.wait("globex", rid)
        refused = await scene.send("globex")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        await scene.wait("acme", "other")  # a burst delays only its owner
        await scene.release()


async def test_retry_after_follows_from_how_long_requests_run(scene_of: Any) -> None:
    async with scene_of(queue_limit=1) as scene:
        await scene.wait("globex", "running", "running")
        await scene.wait("globex", "queued")
        await scene.runs_for(41.5)
        refused = await scene.send("globex")
        assert refused.headers["retry-after"] == "42"
        assert (await scene.record("queued"))["estimated_wait_secs"] == pytest.approx(41.5)
        await scene.release()


async def test_limits_of_a_key_are_429_with_retry_after(scene_of: Any) -> None:
    async with scene_of() as scene:
        await scene.wait("small", "running", "running", max_tokens=100)
        await scene.wait("small", "queued", max_tokens=100)
        refused = await scene.send("small", max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "inflight_limit")
        assert int(refused.headers["retry-after"]) >= 1
        await scene.release()


async def test_a_key_may_have_only_so_many_tokens_queued(scene_of: Any) -> None:
    async with scene_of() as scene:
        await scene.wait("globex", "running", "running")
        await scene.wait("small", "queued", max_tokens=100)
        async with scene.sdk("small") as sdk:
            with pytest.raises(openai.RateLimitError) as refused:
                messages: Any = [{"role": "user", "content": "x"}]
                await sdk.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
        assert refused.value.code == "queue_limit"
        assert int(refused.value.response.headers["retry-after"]) >= 1
        await scene.release()


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(scene_of: Any) -> None:
    async with scene_of(refuse_hopeless=True) as scene:
        scene.gate.touch()
        await scene.wait("globex", "before", "completed")  # from now on it is known for how long one runs
        scene.gate.unlink()
        await scene.wait("globex", "running", "running")
        await scene.runs_for(10)
        for number in range(3):
            await scene.wait("globex", f"g{number}")
        refused = await scene.send("globex", headers={"X_Deadline_Secs": "30"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "hopeless")
        assert int(refused.headers["retry-after"]) == 20  # 40 s of waiting and 10 of running, of which 30 are granted
        assert await scene.cluster.metric("lifecycle_rejections_total", reason="hopeless") == 1
        assert await scene.cluster.inflight() == 4
        hopeful = asyncio.create_task(scene.send("globex", headers={"X_Deadline_Secs": "300"}))
        await wait_until(lambda: _inflight(scene, 5))
        await scene.release()
        assert (await hopeful).status_code == 200


async def _inflight(scene: Scene, number: int) -> bool:
    found = await scene.cluster.inflight()
    return found == number


@pytest.mark.parametrize(("is_wanted", "status"), [(True, "failed"), (False, "cancelled")])
async def test_the_sdks_timeout_may_be_the_deadline(scene_of: Any, is_wanted: bool, status: str) -> None:
    """Without it the request ends because its client goes away. With it, that comes too late to be the reason."""
    on_disconnect = "continue" if is_wanted else "cancel"
    async with scene_of(adopt_client_timeout=is_wanted, on_disconnect=on_disconnect) as scene:
        async with scene.sdk("acme", timeout=1.5) as sdk:
            messages: Any = [{"role": "user", "content": str(scene.gate)}]
            with pytest.raises((openai.APITimeoutError, openai.InternalServerError)):
                await sdk.chat.completions.create(model=MODEL, messages=messages, extra_headers={"X-Request-Id": "r"})

        async def ended() -> bool:
            return (await scene.record("r"))["finished_at"] is not None

        await wait_until(ended)
        record = await scene.record("r")
        assert record["status"] == status
        assert (record["error_type"] == "deadline") == is_wanted


async def test_a_changed_key_applies_without_a_restart(scene_of: Any) -> None:
    async with scene_of() as scene:
        await scene.wait("globex", "running", "running")
        await scene.wait("globex", "before", priority=5)
        assert (await scene.record("before"))["priority"] == 0
        lines = [
            line + ":weight=2.5:priority=0:5" if line.startswith("globex") else line
            for line in scene.file.read_text().splitlines()
        ]
        scene.file.write_text("\n".join(lines) + "\n")
        number = 0

        async def changed() -> bool:
            nonlocal number
            number += 1
            record = await scene.wait("globex", f"after{number}", priority=5)
            return int(record["priority"]) == 5

        await wait_until(changed)
        (told,) = (await scene.cluster.get("/v1/queue"))["data"]
        assert [owner["weight"] for owner in told["owners"]] == [2.5]
        await scene.release()
