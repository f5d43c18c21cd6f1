"""Wait until replicas of Redis have the writes that somebody relies on, as far as LIFECYCLE_WAIT_REPLICAS says.

WAIT holds up whatever is sent behind it, so the scripts that wait have a connection of their own, and each of its
pipelines ends with one WAIT for all of them. Tokens do not wait, neither for replicas nor behind those who do.

WAIT refers to the last write of its own connection, and to nothing when that has not written yet. A script that is
repeated over a new connection finds its writes done and writes nothing. Therefore a small write precedes each WAIT.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, NoPermissionError, TryAgainError

from lifecycle.errors import StoreUnavailable
from lifecycle.store import script_loader
from lifecycle.store.arguments import pack
from lifecycle.store.link import Link, Receiver, Reply
from lifecycle.store.merged_calls import Call, Unconfirmed
from lifecycle.store.redis import Commands
from lifecycle.store.redis_errors import unavailable

log = logging.getLogger(__name__)

REPLICATED = frozenset(
    {"admit", "track", "take", "finish", "fail", "lost_start", "cancel", "disconnect", "delete_content"}
)
"""The scripts that wait: their caller tells somebody, or starts an engine, and cannot take it back."""

_WARNING_INTERVAL_SECS = 30.0


class Unreplicated:
    """Count the calls of scripts that too few replicas confirmed in time, and warn of them twice a minute at most."""

    def __init__(self, replicas: int = 0, timeout_ms: int = 0) -> None:
        self._needed = f"{replicas} replica{'s' if replicas != 1 else ''} within {timeout_ms} ms"
        self._counts: Counter[str] = Counter()
        self._warned_of = 0
        self._warned_at = float("-inf")

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the number of such calls since the start of this process, by script."""
        return self._counts

    def note(self, script: str, confirmed: str) -> None:
        """Count one call; `confirmed` says by how many replicas it was confirmed, or why that is not known."""
        self._counts[script] += 1
        now = time.monotonic()
        if now - self._warned_at < _WARNING_INTERVAL_SECS:
            return
        self._warned_at, total = now, self._counts.total()
        log.warning(
            "Redis did not confirm %d writes by %s (%s); they stand, but a failover may lose them: see `lifecycle "
            "doctor` and the replicas of Redis",
            total - self._warned_of,
            self._needed,
            confirmed,
        )
        self._warned_of = total


class ReplicatedCommands(Commands):
    """Commands that are answered once `replicas` replicas have them too, or after `timeout_ms`.

    When too few replicas confirm a command in time, it stands nevertheless, its reply is returned, and it is counted
    by `unreplicated`. When the connection is lost before that is known, StoreUnavailable is raised although the command
    was executed: its repetition reaches the primary of then, which may be another one that does not have it.
    """

    def __init__(
        self, client: Redis, *, replicas: int, timeout_ms: int, unreplicated: Unreplicated, redirected: bool = False
    ) -> None:
        """`timeout_ms` must be well below the client's timeout. `redirected` is as in `Commands`."""
        super().__init__(client, redirected=redirected)
        self._replicas = replicas
        self._wait = pack(("WAIT", replicas, timeout_ms))
        self._unreplicated = unreplicated
        self._prefix = ""  # of the last script; the small write goes to the same slot

    async def execute(self, *args: Any) -> Any:
        """Execute one call of a script and return its reply. Raises as `Commands.execute` does."""
        self._prefix = args[3]
        value = await super().execute(*args)
        if isinstance(value, Unconfirmed):
            self._unreplicated.note(script_loader.name_of(args[1]), value.confirmed)
            return value.reply
        return value

    def _send(self, link: Link, calls: Sequence[Call]) -> None:
        loop = asyncio.get_running_loop()
        executed: list[Reply] = [loop.create_future() for _ in calls]
        written: Reply = loop.create_future()
        confirmed: Reply = loop.create_future()
        confirmed.add_done_callback(partial(self._answer, [call.reply for call in calls], executed, written))
        write = pack(("EVAL", script_loader.load("confirm").source, 1, self._prefix, 0))
        commands = [call.command for call in calls]
        link.send([*commands, write, self._wait], [*executed, written, confirmed])

    def _answer(self, replies: Sequence[Receiver], executed: Sequence[Reply], written: Reply, confirmed: Reply) -> None:
        """Pass on what Redis has answered, once WAIT is answered or the connection is lost."""
        lost, by = self._outcome(written, confirmed)
        for reply, done in zip(replies, executed, strict=True):
            failure = done.exception() or lost
            if reply.done():
                continue
            value = None if done.exception() else done.result()
            if isinstance(value, Exception):  # was not executed, so nothing had to be confirmed
                reply.set_result(value)
            elif failure is not None:
                reply.set_exception(failure)
            else:
                reply.set_result(value if by is None else Unconfirmed(value, by))

    def _outcome(self, written: Reply, confirmed: Reply) -> tuple[BaseException | None, str | None]:
        """Return why it is not known what became of the writes, and how far they are confirmed if not far enough."""
        of_write, of_wait = written.exception(), confirmed.exception()  # asyncio logs one that nobody reads
        lost = of_write or of_wait
        if lost is not None:
            return lost, None
        number = confirmed.result()
        if isinstance(number, NoPermissionError):
            return None, f"this Redis user may not call WAIT: {number}"
        if isinstance(written.result(), (MovedError, AskError, TryAgainError)):  # the slot of this write, of no other
            return None, "as the slot of the confirming write is being moved"
        for reply in (written.result(), number):  # errors of a primary that was demoted meanwhile, for instance
            if isinstance(reply, Exception):
                return unavailable(reply) or StoreUnavailable("Redis did not answer WAIT", str(reply)), None
        return None, None if number >= self._replicas else f"by {number}"
