"""Mixed load for the soak: clients of every kind, each held to what it was promised."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import httpx2

from tests.chaos.bench import Bench
from tests.cluster import Process
from tests.sse import Stream, chat, error_of, text_of

CLIENT_TIMEOUT_SECS = 60.0  # no client waits longer for its end, whatever is broken
_PAUSE_SECS = 0.05
_RESUMES = 20
_MODELS = ("echo", "gentle", "steadfast")  # at 50 tokens a second, at 10, and at 20 by an engine that can resume


class Load:
    """`run()` until `stop()`; then every client has come to its end, and `outcomes` says which."""

    def __init__(self, bench: Bench, seed: int, clients: int) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._bench = bench
        self._random = random.Random(f"load {seed}")
        self._clients = clients
        self._names = count(1)
        self._over = False
        self._asked: dict[str, list[Process]] = defaultdict(list)  # by request: whom its client has asked
        self._kinds: dict[str, Callable[[str, str], Awaitable[str]]] = {
            "stream": self._stream,
            "unary": self._unary,
            "continue": self._continue,
            "cancel": self._cancel,
            "stop": self._stop,
            "disconnect": self._disconnect,
            "second reader": self._second_reader,
        }

    def stop(self) -> None:
        self._over = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(), name=f"client {number}")

    async def _client(self) -> None:
        while not self._over:
            kind = self._random.choice(list(self._kinds))
            rid = f"{kind.replace(' ', '-')}-{next(self._names)}"
            try:
                async with asyncio.timeout(CLIENT_TIMEOUT_SECS):
                    outcome = await self._kinds[kind](rid, self._words())
            except TimeoutError:
                outcome = "waited for ever"
                self._bench.invariants.note(f"{rid}: its client has waited for {CLIENT_TIMEOUT_SECS:g} s")
            except httpx2.TransportError as failure:
                outcome = "connection lost"
                if all(f in self._bench.frontends and f.process.returncode is None for f in self._asked[rid]):
                    self._bench.invariants.note(f"{rid}: a living frontend broke off: {failure!r}")
            finally:
                self._asked.pop(rid, None)
            self.outcomes[kind, outcome] += 1
            await self._bench.invariants.check_readings()
            await asyncio.sleep(_PAUSE_SECS * self._random.random())

    # Kinds of clients

    async def _stream(self, rid: str, words: str) -> str:
        async with self._bench.post(self._frontend(rid), self._body(words), rid) as stream:
            return await self._whole(stream, rid, words)

    async def _unary(self, rid: str, words: str) -> str:
        body = self._body(words) | {"stream": False}
        url = self._frontend(rid).url + "/v1/chat/completions"
        answer = await self._bench.http.post(url, json=body, headers={"X-Request-Id": rid}, timeout=CLIENT_TIMEOUT_SECS)
        if answer.status_code != 200:
            return _refusal(answer)
        if answer.json()["choices"][0]["message"]["content"] != words:
            self._bench.invariants.note(f"{rid}: a unary answer is not the text: {answer.text[:200]}")
        return "whole"

    async def _continue(self, rid: str, words: str) -> str:
        """Goes away again and again, and reads on elsewhere."""
        text = ""
        async with self._bench.post(self._frontend(rid), self._body(words), rid, X_On_Disconnect="continue") as stream:
            if stream.response.status_code != 200:
                return await _refused(stream)
            try:
                await stream.read_tokens(self._random.randint(1, 5))
            except httpx2.TransportError:
                pass
            text += text_of(stream.events)
            after = _last(stream, "")
            if stream.events and stream.events[-1].data == "[DONE]" and error_of(stream.events) is None:
                return self._compared(rid, text, words)
        for _ in range(_RESUMES):
            opened: Stream | None = None
            try:
                async with self._bench.resume(self._frontend(rid), rid, after) as opened:
                    if opened.response.status_code == 404:
                        self._bench.invariants.note(f"{rid}: admitted, and unknown")
                        return "unknown"
                    if opened.response.status_code == 200:
                        await opened.read()
            except httpx2.TransportError:
                pass
            error: dict[str, Any] | None = {"error_type": ""}
            if opened is not None and opened.response.status_code == 200:
                text += text_of(opened.events)
                after = _last(opened, after)
                if opened.ended and opened.events:
                    error = error_of(opened.events)
            if error is None:
                return self._compared(rid, text, words)
            if error["error_type"] not in ("", "unavailable", "frontend_lost"):
                return str(error["error_type"])
            record = await self._bench.store.read(rid, retry_for_secs=10)
            if record is not None and record.status.terminal and record.error_type:
                return record.error_type
            await asyncio.sleep(0.2)
        self._bench.invariants.note(f"{rid}: not read to its end in {_RESUMES} tries")
        return "gave up"

    async def _cancel(self, rid: str, words: str) -> str:
        return await self._cancelled_by_id(rid, words, "kill")

    async def _stop(self, rid: str, words: str) -> str:
        return await self._cancelled_by_id(rid, words, "stop")

    async def _cancelled_by_id(self, rid: str, words: str, mode: str) -> str:
        """Cancel a request by its id at any frontend while it is read."""
        async with self._bench.post(self._frontend(rid), self._body(words), rid) as stream:
            if stream.response.status_code != 200:
                return await _refused(stream)
            await stream.read_tokens(2)
            url = f"{self._frontend(rid).url}/v1/requests/{rid}/cancel"
            answer = await self._bench.http.post(url, json={"mode": mode, "wait_ms": 5000}, timeout=CLIENT_TIMEOUT_SECS)
            await stream.read()
        error = error_of(stream.events)
        return f"{answer.status_code}, {error['error_type'] if error else 'no error'}"

    async def _disconnect(self, rid: str, words: str) -> str:
        async with self._bench.post(self._frontend(rid), self._body(words), rid) as stream:
            if stream.response.status_code != 200:
                return await _refused(stream)
            await stream.read_tokens(self._random.randint(1, 5))
        return "left"

    async def _second_reader(self, rid: str, words: str) -> str:
        async with self._bench.post(self._frontend(rid), self._body(words), rid) as stream:
            if stream.response.status_code != 200:
                return await _refused(stream)
            await stream.read_tokens(1)
            async with self._bench.resume(self._frontend(rid), rid) as second:
                if second.response.status_code != 200:
                    await second.response.aread()
                    return await self._whole(stream, rid, words)
                first, _ = await asyncio.gather(self._whole(stream, rid, words), second.read())
                return first

    async def served(self, number: int) -> bool:
        """Return whether every model answers a short request completely at every frontend."""
        answers = [
            await self._bench.http.post(
                frontend.url + "/v1/chat/completions",
                json=chat("served", model) | {"stream": False},
                headers={"X-Request-Id": f"served-{number}-{next(self._names)}"},
                timeout=CLIENT_TIMEOUT_SECS,
            )
            for frontend in list(self._bench.frontends)
            for model in _MODELS
        ]
        return all(answer.status_code == 200 for answer in answers)

    # What they have in common

    def _frontend(self, rid: str) -> Process:
        self._asked[rid].append(self._random.choice(self._bench.serving))
        return self._asked[rid][-1]

    def _body(self, words: str) -> dict[str, Any]:
        return chat(words, self._random.choice(_MODELS))

    def _words(self) -> str:
        length = self._random.choice((1, 5, 20, 20, 40))
        return " ".join(f"w{number}" for number in range(length))

    async def _whole(self, stream: Stream, rid: str, words: str) -> str:
        if stream.response.status_code != 200:
            return await _refused(stream)
        events = await stream.read()
        error = error_of(events)
        return str(error["error_type"]) if error else self._compared(rid, text_of(events), words)

    def _compared(self, rid: str, text: str, words: str) -> str:
        if text != words:
            self._bench.invariants.note(f"{rid}: a client read {text!r}, its request was to say {words!r}")
        return "whole"


def _last(stream: Stream, before: str) -> str:
    return next((event.id for event in reversed(stream.events) if event.id), before)


async def _refused(stream: Stream) -> str:
    await stream.response.aread()
    return _refusal(stream.response)


def _refusal(answer: httpx2.Response) -> str:
    error = answer.json()["error"]
    return f"{answer.status_code} {error['code'] or error['type']}"
