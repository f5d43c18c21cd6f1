"""Check what must hold in Redis at every moment, in the data of the simulated server itself.

After each command: a request that has ended does not change, its stream does not grow, and its attempts only rise.
Now and then, and at the end: who holds what is kept consistently, and each request that waits is in its queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import orjson

from lifecycle.execution.preemption import MOST_PREEMPTIONS
from lifecycle.store import script_loader
from lifecycle.store.results import queued_and_running
from lifecycle.types import MOST_PRIORITY
from tests.leaks import leaks
from tests.simulation import queue_rules
from tests.simulation.server.database import Database
from tests.simulation.server.replies import CommandError
from tests.simulation.server.server import Server
from tests.simulation.server.values import Hash, SortedSet, Stream
from tests.simulation.story import Story
from tests.simulation.trees import Trees
from tests.spec.replay import Replay

TERMINAL = (b"completed", b"failed", b"cancelled")
_MAY_CHANGE = frozenset({b"connection", b"orphan_events", b"webhook", b"steps", b"steps_left_out", b"lost_start"})
_LOOK_SECS = 0.5
_MOST = 20


class _Ended(NamedTuple):
    """A request as it was when it ended."""

    fields: dict[bytes, bytes]
    stream_length: int


class Invariants:
    """Watches a server. `run()` looks at the whole of it again and again, and `on_call` at each command."""

    def __init__(self, server: Server, namespace: str, story: Story, trees: Trees) -> None:
        self.violations: list[str] = []
        self._server = server
        self._namespace = namespace
        self._story = story
        self._trees = trees
        self._ended: dict[bytes, _Ended] = {}
        self._killed: dict[bytes, int] = {}  # how long the stream was when the request was killed
        self._attempts: dict[bytes, int] = {}
        self._generation = server.generation
        self._replay = Replay(server.database, self.note)
        self._take = script_loader.load("take").sha
        server.on_call = self._on_call

    async def run(self) -> None:
        """Look at everything until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECS)
            self.look()

    async def check_end(self) -> list[str]:
        """Return what is wrong when nothing is inflight any more."""
        self.look()
        return self.violations + [
            f"left in Redis: {leak}" for leak in await leaks(_Direct(self._server), self._namespace)
        ]

    def note(self, violation: str) -> None:
        if violation not in self.violations and len(self.violations) < _MOST:
            self.violations.append(violation)
            self._story.note("VIOLATION", violation)

    # After each command

    def _on_call(self, args: Sequence[bytes], reply: Any) -> None:
        server = self._server
        touched, server.database.touched = server.database.touched, {}
        if server.generation != self._generation:  # another server: what it has lost is allowed to be undone
            self._generation = server.generation
            self._ended.clear()
            self._killed.clear()
            self._attempts.clear()
            self._replay.begin_anew()
        self._replay.on_call(args, reply, list(touched))
        self._check_take(args, reply, touched)
        for key in touched:
            prefix, _, name = key.partition(b"}:")
            kind, _, rid = name.partition(b":")
            if kind == b"request":
                self._check_request(key, rid)
            elif kind == b"tokens":
                self._check_stream(prefix + b"}:request:" + rid, rid, len(server.database.values.get(key) or ()))

    def _check_take(self, args: Sequence[bytes], reply: Any, touched: Container[bytes]) -> None:
        if args[0].upper() == b"EVALSHA" and args[1].decode() == self._take and isinstance(reply, list):
            prefix = args[3]
            runs = [run for run in (reply[1] if len(reply) > 1 else ()) if prefix + b"request:" + run[0] in touched]
            queue_rules.check_take(self._server.database, prefix, runs, self.note)

    def _check_stream(self, key: bytes, rid: bytes, length: int) -> None:
        ended = self._ended.get(key)
        if ended is not None and length > ended.stream_length:
            self.note(f"{rid.decode()} has ended, and its stream has grown")
        if length > self._killed.get(key, length):
            self.note(f"{rid.decode()} was killed, and its stream has grown")

    def _check_request(self, key: bytes, rid: bytes) -> None:
        record = self._server.database.values.get(key)
        ended = self._ended.get(key)
        if not isinstance(record, Hash):
            return
        attempt = int(record.get(b"attempt", b"0"))
        if attempt < self._attempts.get(key, 0):
            self.note(f"{rid.decode()} went back from attempt {self._attempts[key]} to {attempt}")
        self._attempts[key] = attempt
        if int(record.get(b"preemptions", b"0")) > MOST_PREEMPTIONS:
            self.note(f"{rid.decode()} was moved more than {MOST_PREEMPTIONS} times for better requests")
        for step in map(orjson.loads, record.get(b"steps", b"").splitlines()):
            if step.get("preempted_by", -MOST_PRIORITY - 1) >= int(record.get(b"priority", b"0")):
                self.note(f"{rid.decode()} was moved for a request of priority {step['preempted_by']}")
        if record.get(b"cancel_mode") == b"kill" and key not in self._killed:
            self._killed[key] = self._length_of(key)
        if ended is not None:
            changed = [
                name for name, value in ended.fields.items() if name not in _MAY_CHANGE and record.get(name) != value
            ]
            if changed:
                was, now = ended.fields.get(changed[0]), record.get(changed[0])
                self.note(f"{rid.decode()} had ended, and its {changed[0].decode()} went from {was!r} to {now!r}")
        elif record.get(b"status") in TERMINAL:
            self._ended[key] = _Ended(dict(record), self._length_of(key))

    def _length_of(self, key: bytes) -> int:
        tokens = self._server.database.values.get(key.replace(b"}:request:", b"}:tokens:", 1))
        return len(tokens) if isinstance(tokens, Stream) else 0

    # The whole

    def look(self) -> None:
        """Check each shard."""
        database = self._server.database
        shards: dict[bytes, None] = {}
        for key in database.values:
            prefix, found, _ = key.partition(b"}:")
            if found and not prefix.endswith(b"{ctl"):
                shards[prefix + b"}:"] = None
        for prefix in shards:
            _Shard(database, prefix).check(self.note)
        self._trees.look(database, self.note)


class _Shard:
    """One shard's data at one moment."""

    def __init__(self, database: Database, prefix: bytes) -> None:
        self._values = database.values
        self._prefix = prefix
        begin = prefix + b"request:"
        self._records = {
            key[len(begin) :]: value
            for key, value in database.values.items()
            if key.startswith(begin) and isinstance(value, Hash)
        }
        self._inflight = {rid: record for rid, record in self._records.items() if record.get(b"status") not in TERMINAL}

    def _named(self, name: bytes) -> dict[bytes, Any]:
        begin = self._prefix + name
        return {key[len(begin) :]: value for key, value in self._values.items() if key.startswith(begin)}

    def check(self, note: Any) -> None:
        active = self._values.get(self._prefix + b"active")
        listed = set(active.scores) if isinstance(active, SortedSet) else set()
        if listed != set(self._inflight):
            note(f"`active` has {_texts(listed ^ set(self._inflight))} too much or too little")
        self._check_frontends(note)
        self._check_workers(note)
        self._check_queues(note)

    def _check_frontends(self, note: Any) -> None:
        held: dict[bytes, set[bytes]] = {}
        for rid, record in self._inflight.items():
            held.setdefault(record.get(b"frontend", b""), set()).add(rid)
        counts, members = self._named(b"counts:"), self._named(b"inflight:")
        for frontend in dict.fromkeys([*held, *counts, *members]):
            rids = held.get(frontend, set())
            counted = set(members.get(frontend, ()))
            if counted != rids:
                note(f"{frontend.decode()} is counted for {_texts(counted)} and holds {_texts(rids)}")
            states = Counter(self._inflight[rid][b"status"].decode() for rid in rids)
            shown: Counter[str] = Counter()
            for number in counts.get(frontend, {}).values():
                queued, running = queued_and_running(int(number))
                shown += Counter(queued=queued, running=running)
            if shown != states:
                note(f"{frontend.decode()} counts {dict(shown)} and holds {dict(states)}")

    def _check_workers(self, note: Any) -> None:
        runs: dict[bytes, set[bytes]] = {}
        for rid, record in self._inflight.items():
            if record.get(b"status") == b"running":
                runs.setdefault(record.get(b"worker", b""), set()).add(rid)
        running = self._named(b"running:")
        for worker in dict.fromkeys([*runs, *running]):
            if set(running.get(worker, ())) != runs.get(worker, set()):
                note(
                    f"{worker.decode()} is said to run {_texts(running.get(worker, ()))}, "
                    f"and the records say {_texts(runs.get(worker, ()))}"
                )

    def _check_queues(self, note: Any) -> None:
        waiting = {rid: flow for flow in queue_rules.flows(self._values, self._prefix) for rid in flow.rids}
        for rid, record in self._inflight.items():
            place = record.get(b"priority", b"0"), record.get(b"owner", b""), record.get(b"model", b"")
            flow = waiting.get(rid)
            if record.get(b"status") == b"queued" and (flow is None or flow[:3] != place):
                note(f"{rid.decode()} is queued, and in no queue")
        for rid, flow in waiting.items():
            if self._records.get(rid, Hash()).get(b"status") != b"queued":
                note(f"{rid.decode()} waits in {flow}, and is not queued")
            level = self._values.get(self._prefix + b"level:" + flow.priority + b"|" + flow.model)
            levels = self._values.get(self._prefix + b"levels:" + flow.model)
            if not isinstance(level, SortedSet) or flow.owner not in level.scores:
                note(f"{flow} is not in its level")
            if not isinstance(levels, SortedSet) or flow.priority not in levels.scores:
                note(f"the level of {flow} is not listed")
        queue_rules.check_counts(self._values, self._prefix, note)


class _Direct:
    """Sends commands to the server without a network, for tests/leaks.py."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def execute(self, *args: Any) -> Any:
        packed = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        reply = self._server.execute(packed)
        if isinstance(reply, CommandError):
            raise reply
        return reply

    async def nodes(self) -> Sequence[_Direct]:
        return (self,)


def _texts(names: Any) -> list[str]:
    return sorted(name.decode() for name in names)
