"""A cluster with API keys whose only worker has one slot, so that requests wait until the test lets them run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai

from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole, PriorityRange
from lifecycle.queue_share import QueueShare
from lifecycle.settings import Settings
from lifecycle.store.transitions import Store
from tests.cluster import Cluster, running
from tests.conftest import connect
from tests.sse import chat
from tests.waiting import wait_until

MODEL = "m"


class Scene:
    """A cluster with keys, and one worker with one slot, whose engine waits for a file to exist."""

    def __init__(self, cluster: Cluster, keys: dict[str, str], file: Path, directory: Path) -> None:
        self.cluster = cluster
        self.keys = keys
        self.file = file
        self.gate = directory / "gate"
        self._calls: list[asyncio.Task[httpx2.Response]] = []

    @property
    def url(self) -> str:
        return self.cluster.frontends[0].url

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}

    def sdk(self, name: str, **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key=self.keys[name], max_retries=0, **more)

    async def send(self, name: str, **fields: Any) -> httpx2.Response:
        """Send a call that is expected to be refused."""
        headers = self.bearer(name) | {k.replace("_", "-"): v for k, v in fields.pop("headers", {}).items()}
        body = chat(str(self.gate), MODEL, stream=False, **fields)
        return await self.cluster.http.post(self.url + "/v1/chat/completions", json=body, headers=headers)

    async def wait(self, name: str, rid: str, status: str = "queued", **fields: Any) -> dict[str, Any]:
        """Send a call in the background, and return its record once it has the status."""
        headers = self.bearer(name) | {"X-Request-Id": rid}
        body = chat(str(self.gate), MODEL, stream=False, **fields)
        post = self.cluster.http.post(self.url + "/v1/chat/completions", json=body, headers=headers)
        self._calls.append(asyncio.create_task(post))

        async def found() -> dict[str, Any] | None:
            answer = await self.cluster.http.get(f"{self.url}/v1/requests/{rid}")
            record: dict[str, Any] = answer.json()
            return record if answer.status_code == 200 and record["status"] == status else None

        record: dict[str, Any] = await wait_until(found)
        return record

    async def record(self, rid: str) -> dict[str, Any]:
        return await self.cluster.record(rid)

    async def runs_for(self, secs: float) -> None:
        """Let the model's requests have run for so long on average."""
        settings = self.cluster.settings
        store = Store(connect(settings), settings)
        await store.command("HSET", f"{store.keys.prefixes[0]}queue:{MODEL}", "mean_secs", secs)
        await store.commands.aclose()

    async def release(self) -> list[httpx2.Response]:
        """Let everything run to its end."""
        self.gate.touch()
        return await asyncio.gather(*self._calls)


def keys_of(**shares: QueueShare) -> dict[str, tuple[str, str]]:
    """Return an API key and its line for each name: some of the tests' own, and one with each of these shares."""
    made = {
        "acme": new_key("acme", KeyRole.CLIENT, 0, 4.0, PriorityRange(-10, 10)),
        "globex": new_key("globex", KeyRole.CLIENT),
        "small": new_key("small", KeyRole.CLIENT, 2, queue_share=QueueShare(tokens=150)),
        "ops": new_key("ops", KeyRole.OPERATOR),
    }
    made |= {name: new_key(name, KeyRole.CLIENT, queue_share=share) for name, share in shares.items()}
    return {name: (key, kept.line) for name, (key, kept) in made.items()}


@asynccontextmanager
async def open_scene(settings: Settings, directory: Path, keys: dict[str, tuple[str, str]]) -> AsyncIterator[Scene]:
    """Run one frontend and the worker. `settings` name the file for the lines of the keys."""
    file = Path(settings.api_keys)
    file.write_text("".join(f"{line}\n" for _, line in keys.values()))
    operator = {"Authorization": f"Bearer {keys['ops'][0]}"}
    async with running(settings, directory, workers=0, headers=operator) as cluster:
        await cluster.worker(MODEL, "tests.engines:waiting")
        yield Scene(cluster, {name: key for name, (key, _) in keys.items()}, file, directory)
