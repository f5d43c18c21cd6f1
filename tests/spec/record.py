"""Hold what Redis has of one request: its record, its token stream, and the count that it is part of."""

from __future__ import annotations

from typing import NamedTuple

ABSENT = ""
QUEUED = "queued"
RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
TERMINAL = (COMPLETED, FAILED, CANCELLED)


class Start(NamedTuple):
    """One start of an attempt. `nonce` tells two starts with the same number apart.

    `behind` is the token behind which its engine begins. The scripts do not know it. It shows a splice: a token that
    follows one which its engine has not seen.
    """

    attempt: int
    nonce: int | str
    behind: Token | None

    @property
    def base(self) -> int:
        return self.behind.number if self.behind is not None else 0

    def same(self, other: Start | None) -> bool:
        return other is not None and (self.attempt, self.nonce) == (other.attempt, other.nonce)


class Token(NamedTuple):
    """One token of an answer: its number, and the start of the attempt that has made it."""

    number: int
    start: Start


class Record(NamedTuple):
    """One request in Redis. `starts` and `text` are its token stream: the openings of its attempts, and its tokens."""

    status: str = ABSENT
    frontend: int | str = ""  # the owner
    counted: tuple[int | str, str] | None = None  # the owner and the status under which it counts as inflight
    worker: int | str = ""
    starts: tuple[Start, ...] = ()
    failures: int = 0  # attempts that have failed
    resumable: bool = False  # whether the engine of the last start can continue behind tokens
    cancel: str = ""  # stop or kill
    text: tuple[Token, ...] = ()
    closed: bool = False  # nothing can be appended
    ends: int = 0  # how many ends were counted

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def inflight(self) -> bool:
        return self.status in (QUEUED, RUNNING)

    @property
    def start(self) -> Start | None:
        return self.starts[-1] if self.starts else None

    @property
    def attempt(self) -> int:
        return self.starts[-1].attempt if self.starts else 0

    @property
    def number(self) -> int:
        """Return the number of the last token."""
        return self.text[-1].number if self.text else 0

    def runs(self, worker: int | str, start: Start) -> bool:
        """Return whether this start of this worker is the one that runs."""
        return self.status == RUNNING and self.worker == worker and start.same(self.start)


def is_whole(text: tuple[Token, ...]) -> bool:
    """Return whether no token is missing before the last one."""
    return all(token.number == number for number, token in enumerate(text, 1))


def splice_in(text: tuple[Token, ...]) -> str:
    """Say where a token follows one that its engine has not begun behind, '' when that is nowhere."""
    before: Token | None = None
    for token in text:
        goes_on = before is not None and token.start == before.start and token.number == before.number + 1
        if not goes_on and (token.start.behind != before or token.number != token.start.base + 1):
            return f"token {token.number} of attempt {token.start.attempt} is not what follows {before}"
        before = token
    return ""
