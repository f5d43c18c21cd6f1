"""Requests, runs and limits as the reference model, the actors and the histories know them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from lifecycle.types import Labels, Role, Storage

_TERMINAL = ("completed", "failed", "cancelled")


class Limits(NamedTuple):
    """Seconds; 0 is off."""

    queue: int
    first_token: int
    deadline: int


class Share(NamedTuple):
    """Hold what decides about the order in which requests start."""

    owner: str = ""
    priority: int = 0
    weight: int = 1
    max_tokens: int | None = None


class Piece(NamedTuple):
    """Tokens of one attempt that end with `number`."""

    rid: str
    attempt: int
    number: int
    texts: tuple[str, ...]
    is_lost: bool = False  # of a start that Redis has lost, and whose number another one has

    @property
    def first(self) -> bool:
        return self.number == len(self.texts)


@dataclass
class Tracked:
    """One request as it should be."""

    rid: str
    nonce: str
    labels: Labels
    frontend: str
    on_disconnect: str
    grace_secs: int
    deadlines: dict[str, tuple[int, int]]  # kind → when it is due
    readers: dict[str, int]
    status: str = "queued"
    attempt: int = 0
    worker: str = ""
    number_of_admission: int = 0
    queued_again: bool = False
    owner: str = ""
    priority: int = 0
    weight: int = 1
    max_tokens: int | None = None
    cost: int | None = None  # that its owner was charged with at the start, until the end corrects it
    cancel_mode: str = ""
    cancelled_by: str = ""
    error_type: str = ""
    finish_reason: str = ""
    connection: str = ""
    pieces: list[Piece] = field(default_factory=list)
    closed: bool = False
    moved: bool = False  # to another frontend than the one that admitted it
    resumable: bool = False  # by the worker that started it last
    given_back: int = 0  # the last attempt that was given back: nothing of it can follow
    needs: tuple[str, ...] = ()
    failures: int = 0  # attempts that failed and were repeated
    queue_limit_secs: int = 0  # of each stay in the queue
    storage: str = ""
    parent: str = ""
    level: int = 1  # in its tree
    next_look: tuple[int, int] | None = None  # at its parent; None when it does not end with one

    @property
    def number(self) -> int:
        return self.pieces[-1].number if self.pieces else 0

    @property
    def terminal(self) -> bool:
        return self.status in _TERMINAL

    @property
    def has_body(self) -> bool:
        return not self.terminal or self.storage in (Storage.KEPT, Storage.BACKGROUND)

    @property
    def has_stream(self) -> bool:
        """Return whether its events are still there."""
        return not self.terminal or self.storage != Storage.DELETED

    @property
    def kill_pending(self) -> bool:
        return self.status == "running" and self.cancel_mode == "kill"


def body_of(rid: str) -> bytes:
    """Return a request's body; those of two requests differ in length."""
    return b"x" * (200 + 40 * int(rid.removeprefix("r")))


class Call(NamedTuple):
    """The limits that a client asks for."""

    frontend: str
    labels: Labels
    on_disconnect: str
    grace_secs: int
    limits: Limits
    needs: tuple[str, ...]  # gated parameters
    storage: str
    share: Share


@dataclass
class Run:
    """An attempt that a worker believes to be running; it is not notified when the attempt is over."""

    rid: str
    worker: str
    attempt: int
    number: int = 0

    def piece(self, count: int, after: int = 0) -> Piece:
        """The next tokens, or those that come `after` so many more."""
        number = self.number + after
        texts = tuple(f"{self.attempt}.{number + i + 1} " for i in range(count))
        return Piece(self.rid, self.attempt, number + count, texts)


@dataclass
class Slot:
    """A place that a replica fills, and another after its death: "w0" stands for "w0.0", "w0.1", …"""

    role: Role
    generation: int = 0
    silent: bool = False
