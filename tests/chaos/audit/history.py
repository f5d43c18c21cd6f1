"""Hold what a load has called and what it was answered, with the times of the caller's clock.

A history is a list of calls and of windows. It can be written to a file of JSON lines and be checked again later.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.chaos.audit.asked import Asked

TERMINAL = ("completed", "failed", "cancelled")


class Operation(StrEnum):
    """Name what a call asks for."""

    ADMIT = "admit"
    RESUME = "resume"
    CANCEL = "cancel"
    STATUS = "status"
    INFLIGHT = "inflight"


class How(StrEnum):
    """Tell how the answer of a call ended."""

    WHOLE = "whole"  # the server ended it in order
    LEFT = "left"  # the client went away on purpose
    BROKEN = "broken"  # the connection failed
    SILENT = "silent"  # it had not come within the client's time limit


class Token(NamedTuple):
    """One event of a stream: its position and its text."""

    attempt: int
    number: int
    text: str

    @property
    def position(self) -> tuple[int, int]:
        return self.attempt, self.number


class Seen(NamedTuple):
    """A record, as far as the rules need it."""

    status: str
    error_type: str
    attempt: int
    finished_at: float | None
    created_at: float | None = None

    @property
    def took_secs(self) -> float | None:
        """Return how long the request took, by Redis's clock, or None."""
        return None if self.finished_at is None or self.created_at is None else self.finished_at - self.created_at

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call and its answer. Times are seconds since the load began."""

    operation: Operation
    invoked_at: float
    completed_at: float
    rid: str = ""
    replica: str = ""
    code: int = 0  # 0: no status line came
    answered_at: float = math.inf  # when the status line came
    how: How = How.WHOLE
    asked: Asked | None = None  # of an admission
    stream: bool = False
    after: tuple[int, int] = (0, 0)  # of a resume
    mode: str = ""  # of a cancel
    tokens: tuple[Token, ...] = ()  # of a stream
    text: str = ""  # of a unary answer
    done: bool = False  # the stream ended with [DONE]
    error: str = ""  # the error_type of the frame or of the body
    retry_after: bool = False
    record: Seen | None = None
    total: int = 0  # of an inflight reading
    attached: bool = False  # of an admission: it was given the request of an earlier call by its idempotency key

    @property
    def succeeded(self) -> bool:
        """Return whether this answer says that its request has completed."""
        if self.code != 200 or self.how is not How.WHOLE or self.error:
            return False
        if self.operation is Operation.ADMIT:
            return self.done or not self.stream
        return self.operation is Operation.RESUME and self.done


@dataclass(frozen=True)
class Window:
    """A time in which something is broken. `loses_data`: Redis may lose what it had acknowledged.

    `replicas`: those whose connections may break; None: any. `expires_leases`: leases of replicas that live may expire.
    """

    begins_at: float
    ends_at: float
    what: str
    loses_data: bool = False
    replicas: tuple[str, ...] | None = ()
    expires_leases: bool = False

    def overlaps(self, begins_at: float, ends_at: float) -> bool:
        return self.begins_at <= ends_at and begins_at <= self.ends_at


@dataclass
class History:
    """`retention_secs`: how long an ended request must be readable. `settle_secs`: how long after a window counts and
    consequences may be late. `shared`: others use the deployment too, so a count may be higher than the load explains.
    `short`: requests may be shorter than a heartbeat, so they may end before a replica finds that they were admitted
    although it has answered 503, or that Redis has lost their end.
    """

    retention_secs: float = 600.0
    settle_secs: float = 20.0
    shared: bool = False
    short: bool = False
    calls: list[Call] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def by_request(self) -> dict[str, list[Call]]:
        """Return the calls of each request in the order in which they were completed."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda call: call.completed_at):
            if call.rid:
                found[call.rid].append(call)
        return found

    def disturbed(self, begins_at: float, ends_at: float) -> bool:
        """Return whether something was broken in this time or shortly before."""
        return any(window.overlaps(begins_at - self.settle_secs, ends_at) for window in self.windows)

    def may_break(self, call: Call) -> bool:
        """Return whether the connection of a call may have broken."""
        return any(
            window.overlaps(call.invoked_at, call.completed_at)
            and (window.replicas is None or call.replica in window.replicas)
            for window in self.windows
        )

    def may_have_lost(self, begins_at: float, ends_at: float) -> bool:
        """Return whether Redis may have lost data in this time."""
        return any(window.loses_data and window.overlaps(begins_at, ends_at) for window in self.windows)

    def may_have_lost_ends(self, begins_at: float, ends_at: float) -> bool:
        """Return whether Redis may have lost ends in this time whose replicas could not report them again."""
        return any(
            window.loses_data and window.expires_leases and window.overlaps(begins_at, ends_at)
            for window in self.windows
        )

    def write(self, path: Path) -> None:
        head = {name: getattr(self, name) for name in ("retention_secs", "settle_secs", "shared", "short")}
        lines: Iterable[dict[str, Any]] = (
            {"history": head},
            *({"window": asdict(window)} for window in self.windows),
            *({"call": _plain(call)} for call in self.calls),
        )
        with path.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` has written."""
        history = cls()
        with path.open() as file:
            for line in file:
                ((kind, value),) = json.loads(line).items()
                if kind == "history":
                    history = cls(**value)
                elif kind == "window":
                    replicas = value.pop("replicas")
                    history.windows.append(Window(**value, replicas=None if replicas is None else tuple(replicas)))
                else:
                    history.calls.append(_call(value))
        return history


def _plain(call: Call) -> dict[str, Any]:
    values = asdict(call) | {"tokens": call.tokens, "record": call.record}
    return values | {"answered_at": None if math.isinf(call.answered_at) else call.answered_at}


def _call(values: dict[str, Any]) -> Call:
    return Call(
        **values
        | {
            "operation": Operation(values["operation"]),
            "how": How(values["how"]),
            "asked": Asked(**values["asked"]) if values["asked"] else None,
            "after": tuple(values["after"]),
            "tokens": tuple(Token(*token) for token in values["tokens"]),
            "record": Seen(*values["record"]) if values["record"] else None,
            "answered_at": math.inf if values["answered_at"] is None else values["answered_at"],
        }
    )
