"""One request with all that is known of it, and what all requests share."""

from __future__ import annotations

from typing import NamedTuple

from tests.spec.record import Record, Start, Token


class Finish(NamedTuple):
    """An end that a worker reports: its status, the number of the last token, and how many of the last it brings."""

    status: str
    last: int
    remainder: int


class Attempt(NamedTuple):
    """An attempt in the process of its worker. `made` is the number of the last token that Redis has confirmed."""

    start: Start
    made: int
    killed: bool = False  # its engine was killed
    lost: bool = False  # Redis has lost its tokens
    checks: bool = False  # it asks whether its last tokens are there before it appends more
    finish: Finish | None = None  # its report, which is repeated until it is answered


class Report(NamedTuple):
    """An end that a worker has reported, and remembers."""

    start: Start
    status: str
    last: int


class View(NamedTuple):
    """Hold what one worker knows of a request."""

    taking: int = 0  # the nonce of a take whose answer has not come, 0 for none
    attempt: Attempt | None = None
    report: Report | None = None

    @property
    def busy(self) -> bool:
        return self.taking > 0 or self.attempt is not None


class Client(NamedTuple):
    """The one who has asked for the request, and reads it."""

    has: tuple[Token, ...] = ()  # the tokens that it has got
    told: str = ""  # how its answer has ended, as it was told
    confirmed: bool = False  # a cancel was answered as confirmed
    at: int = 0  # the frontend that has told it the end, and remembers it


class Life(NamedTuple):
    """One request. `replicated` is what the server has of it that may be promoted in place of Redis."""

    record: Record
    replicated: Record | None
    views: tuple[View, ...]
    client: Client = Client()
    nonces: int = 0  # how many starts there were: each has a nonce of its own

    def with_view(self, worker: int, **changes: object) -> Life:
        views = list(self.views)
        views[worker] = views[worker]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(views=tuple(views))


class Replica(NamedTuple):
    """A frontend or a worker: its process, and its lease."""

    lives: bool = True
    fenced: bool = False  # its lease has ended: Redis refuses what it writes
    knows: bool = False  # it has been told so
    outdated: bool = False  # Redis has lost data, and it has not found out


class Shared(NamedTuple):
    """Hold what all requests share. The numbers say how many faults of a kind there may still be."""

    frontends: tuple[Replica, ...]
    workers: tuple[Replica, ...]
    fenced_there: tuple[bool, ...] | None = None  # of frontends and workers, on the server that may be promoted
    missed: int = 0  # how many writes that server has not received
    crashes: int = 0
    pauses: int = 0  # a lease ends although its process lives
    failovers: int = 0
    cancels: int = 0
    returns: int = 0  # a worker gives a request back

    def with_frontend(self, number: int, **changes: bool) -> Shared:
        return self._replace(frontends=_with(self.frontends, number, changes))

    def with_worker(self, number: int, **changes: bool) -> Shared:
        return self._replace(workers=_with(self.workers, number, changes))


def _with(replicas: tuple[Replica, ...], number: int, changes: dict[str, bool]) -> tuple[Replica, ...]:
    return (*replicas[:number], replicas[number]._replace(**changes), *replicas[number + 1 :])


class Size(NamedTuple):
    """How large the explored world is."""

    frontends: int = 2
    workers: int = 2
    requests: int = 3
    tokens: int = 1  # of each answer
    max_attempts: int = 2
    resumable: bool = False
    crashes: int = 1
    pauses: int = 1
    failovers: int = 0
    lost_writes: int = 4  # that a failover loses, at most
    cancels: int = 1
    returns: int = 0
    reads: bool = False  # clients read
    fails: bool = False  # an engine may fail behind its last token, which then travels with the end


class Step(NamedTuple):
    """One step of one request. `due` says that it happens at some time, unless another step makes it impossible."""

    name: str
    due: bool
    life: Life
    shared: Shared
    by: int = -1  # the worker that has caused it
