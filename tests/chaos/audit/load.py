"""Run clients of every kind against a deployment, and let their calls be recorded.

Each client starts one request after the other, and asks about it until it has ended. A watcher reads the inflight count
and the records of what runs, and comes back to what has ended, all the while.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

from tests.chaos.audit.asked import Asked, ask_for
from tests.chaos.audit.ends import end_of
from tests.chaos.audit.exchange import Exchange
from tests.chaos.audit.history import Call
from tests.chaos.audit.recorder import Recorder

_PAUSE_SECS = 0.05
_REFUSED_PAUSE_SECS = 0.2
_RESUMES = 20
_KEPT = 100  # ended requests to come back to
_LATE_LOOKS_EVERY = 5  # rounds of the watcher
_WATCHED = 8
_FINAL_SECS = 30.0
_LENGTHS = (1, 5, 20, 20, 40)  # words that a client asks for

Choose = Callable[[], str]


class Load:
    """`run()` until `stop()`; then every client has come to its end, and `outcomes` says which.

    `frontends` returns the URLs to call; `models` are pairs of a model and the kind of its text (see `asked`).
    """

    def __init__(
        self,
        recorder: Recorder,
        frontends: Callable[[], Sequence[str]],
        models: Sequence[tuple[str, str]],
        *,
        seed: int,
        clients: int,
        prefix: str,
    ) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.started = 0
        self._recorder = recorder
        self._frontends = frontends
        self._models = models
        self._dice = random.Random(f"load {seed}")
        self._clients = clients
        self._prefix = prefix
        self._over = False
        self._live: dict[str, None] = {}
        self._ended: deque[str] = deque(maxlen=_KEPT)
        self._kinds: dict[str, Callable[[str, Asked], Awaitable[str]]] = {
            "stream": self._stream,
            "unary": self._unary,
            "continue": self._continue,
            "cancel": self._cancel,
            "stop": self._stop,
            "disconnect": self._disconnect,
            "second reader": self._second_reader,
            "same id": self._same_id,
        }

    def stop(self) -> None:
        self._over = True

    async def run(self) -> None:
        watching = asyncio.create_task(self._watch(), name="watcher")
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._clients):
                    group.create_task(self._client(), name=f"client {number}")
        finally:
            self._over = True
            await watching
        await self._look_at_the_end()

    async def served(self) -> bool:
        """Return whether every model answers a short request completely at every frontend."""
        calls = [
            self._recorder.unary(url, self._new_id("served"), ask_for(model, kind, 1))
            for url in self._frontends()
            for model, kind in self._models
        ]
        return all(call.succeeded for call in await asyncio.gather(*calls))

    async def _client(self) -> None:
        while not self._over:
            kind = self._dice.choice(list(self._kinds))
            rid = self._new_id(kind.replace(" ", "-"))
            model, text = self._dice.choice(self._models)
            self._live[rid] = None
            outcome = await self._kinds[kind](rid, ask_for(model, text, self._dice.choice(_LENGTHS)))
            self.outcomes[kind, outcome] += 1
            await self._ask_after(rid)
            self._live.pop(rid)
            self._ended.append(rid)
            refused = outcome.startswith("503") or outcome == "broken"
            await asyncio.sleep((_REFUSED_PAUSE_SECS if refused else _PAUSE_SECS) * self._dice.random())

    async def _ask_after(self, rid: str) -> None:
        """Read the record, and now and then the whole stream, at any frontend."""
        await self._recorder.status(self._any(), rid)
        if self._dice.random() < 0.5:
            async with self._recorder.resume(self._any(), rid) as exchange:
                await _read(exchange)

    async def _watch(self) -> None:
        rounds = 0
        while not self._over:
            rounds += 1
            await self._recorder.inflight(self._any())
            for rid in list(self._live)[:_WATCHED]:
                await self._recorder.status(self._any(), rid)
            if self._ended and rounds % _LATE_LOOKS_EVERY == 0:
                await self._ask_after(self._dice.choice(self._ended))
            await asyncio.sleep(_PAUSE_SECS)

    async def _look_at_the_end(self) -> None:
        """Ask for the last requests until each has ended, and count once more."""
        give_up_at = self._recorder.now() + _FINAL_SECS
        for rid in self._ended:
            while self._recorder.now() < give_up_at:
                seen = await self._recorder.status(self._any(), rid)
                if end_of(seen) is not None or seen.code == 404:
                    break
                await asyncio.sleep(_PAUSE_SECS)
            await self._ask_after(rid)
        await self._recorder.inflight(self._any())

    # Kinds of clients

    async def _stream(self, rid: str, asked: Asked) -> str:
        async with self._recorder.admit(self._any(), rid, asked) as exchange:
            await _read(exchange)
        return _outcome_of(exchange.call)

    async def _unary(self, rid: str, asked: Asked) -> str:
        return _outcome_of(await self._recorder.unary(self._any(), rid, asked))

    async def _continue(self, rid: str, asked: Asked) -> str:
        """Go away again and again, and read on elsewhere."""
        async with self._recorder.admit(self._any(), rid, asked, X_On_Disconnect="continue") as exchange:
            await _read_some(exchange, self._dice.randint(1, 5))
        call = exchange.call
        if call.code != 200:
            return _outcome_of(call)
        after = _behind(call, "")
        for _ in range(_RESUMES):
            async with self._recorder.resume(self._any(), rid, after) as exchange:
                if self._dice.random() < 0.5:
                    await _read_some(exchange, self._dice.randint(1, 10))
                else:
                    await _read(exchange)
            call = exchange.call
            after = _behind(call, after)
            if end_of(call) is not None or call.code in (204, 404):
                return _outcome_of(call)
            seen = await self._recorder.status(self._any(), rid)
            if seen.record is not None and seen.record.terminal and seen.record.error_type:
                return seen.record.error_type
            if call.code != 200 or call.error:
                await asyncio.sleep(_REFUSED_PAUSE_SECS)
        return "not read to its end"

    async def _cancel(self, rid: str, asked: Asked) -> str:
        return await self._cancelled(rid, asked, "kill")

    async def _stop(self, rid: str, asked: Asked) -> str:
        return await self._cancelled(rid, asked, "stop")

    async def _cancelled(self, rid: str, asked: Asked, mode: str) -> str:
        """Cancel a request by its id at any frontend while it is read; read all of it again afterwards."""
        answered = 0
        async with self._recorder.admit(self._any(), rid, asked) as exchange:
            if exchange.stream is not None:
                await _read_some(exchange, self._dice.randint(0, 4))
                wait_ms = self._dice.choice((0, 5000))
                answered = (await self._recorder.cancel(self._any(), rid, mode, wait_ms)).code
            await _read(exchange)
        outcome = _outcome_of(exchange.call)
        async with self._recorder.resume(self._any(), rid) as again:
            await _read(again)
        return f"{answered}, {outcome}" if answered else outcome

    async def _disconnect(self, rid: str, asked: Asked) -> str:
        async with self._recorder.admit(self._any(), rid, asked) as exchange:
            await _read_some(exchange, self._dice.randint(1, 5))
        return _outcome_of(exchange.call)

    async def _second_reader(self, rid: str, asked: Asked) -> str:
        async with self._recorder.admit(self._any(), rid, asked) as exchange:
            await _read_some(exchange, 1)
            reading = asyncio.create_task(self._read_elsewhere(rid), name=f"second reader of {rid}")
            try:
                await _read(exchange)
            finally:
                await reading
        return _outcome_of(exchange.call)

    async def _read_elsewhere(self, rid: str) -> None:
        async with self._recorder.resume(self._any(), rid) as exchange:
            await _read(exchange)

    async def _same_id(self, rid: str, asked: Asked) -> str:
        """Make the same call a second time, elsewhere, while the first is under way."""
        answered = 0  # the first one's connection may break before there is a second
        async with self._recorder.admit(self._any(), rid, asked) as exchange:
            await _read_some(exchange, 1)
            async with self._recorder.admit(self._any(), rid, asked) as second:
                await _read(second)
            answered = second.call.code
            await _read(exchange)
        return f"{answered}, {_outcome_of(exchange.call)}"

    # What they have in common

    def _new_id(self, kind: str) -> str:
        self.started += 1
        return f"{self._prefix}{kind}-{self.started}"

    def _any(self) -> str:
        return self._dice.choice(self._frontends())


async def _read(exchange: Exchange) -> None:
    if exchange.stream is not None:
        await exchange.stream.read()


async def _read_some(exchange: Exchange, count: int) -> None:
    if exchange.stream is not None and count:
        await exchange.stream.read_tokens(count)


def _behind(call: Call, before: str) -> str:
    return f"{call.tokens[-1].attempt}-{call.tokens[-1].number}" if call.tokens else before


def _outcome_of(call: Call) -> str:
    if call.code not in (0, 200):
        return f"{call.code} {call.error}".strip()
    if call.error:
        return call.error
    return str(call.how)
