"""Say what frontends do with one request, on behalf of its client."""

from __future__ import annotations

from collections.abc import Iterator

from tests.spec import scripts
from tests.spec.life import Client, Life, Shared, Size, Step
from tests.spec.record import ABSENT, CANCELLED, COMPLETED, RUNNING, Record, Start, Token

STATE_LOST = "state_lost"


def steps(size: Size, shared: Shared, life: Life) -> Iterator[Step]:
    """Yield the steps of the living frontends."""
    record, client = life.record, life.client
    living = [number for number, frontend in enumerate(shared.frontends) if frontend.lives and not frontend.fenced]
    if record.status == ABSENT and not client.told:
        if life.nonces == 0 and life.replicated is None:
            for frontend in living:
                admitted, _ = scripts.admit(record, frontend, fenced=False)
                yield Step("admit", False, life._replace(record=admitted), shared)
        else:
            yield Step("lose", True, life._replace(client=client._replace(told=STATE_LOST)), shared)
    if living and record.status != ABSENT:
        yield from _cancels(shared, life)
    if client.told and client.told != STATE_LOST and record.inflight:
        yield from _ends_again(shared, life)
    if size.reads and living and not client.told and record.status != ABSENT:
        told = _read(life)
        if told != client:
            at = record.frontend if record.frontend in living else living[0]
            yield Step("read", False, life._replace(client=told._replace(at=int(at) if told.told else 0)), shared)


def _cancels(shared: Shared, life: Life) -> Iterator[Step]:
    """A cancel that finds the request ended as cancelled is confirmed."""
    record, answer = scripts.cancel(life.record, "kill")
    if answer == "pending":
        if shared.cancels and record != life.record:
            yield Step(
                "cancel, pending", False, life._replace(record=record), shared._replace(cancels=shared.cancels - 1)
            )
    elif (
        record.status in (CANCELLED, RUNNING) and not life.client.confirmed and (shared.cancels or life.record.terminal)
    ):
        confirmed = life._replace(record=record, client=life.client._replace(confirmed=True))
        left = shared.cancels - (record != life.record)
        yield Step("cancel, confirmed", False, confirmed, shared._replace(cancels=left))


def _ends_again(shared: Shared, life: Life) -> Iterator[Step]:
    """The frontend that has told the end ends a request again whose end Redis has lost."""
    frontend = shared.frontends[life.client.at]
    if frontend.lives and not frontend.fenced:
        record, answer = scripts.fail(life.record)
        if answer == "done":
            yield Step("end again", True, life._replace(record=record), shared)


def _read(life: Life) -> Client:
    """Let the client read on: one token, or the end."""
    record, client = life.record, life.client
    last = client.has[-1] if client.has else None
    lost = client._replace(told=STATE_LOST)
    if last is not None and _is_another(last.start, record.start):
        return lost
    following = next((token for token in record.text if token.number > len(client.has)), None)
    if following is not None:
        return client._replace(has=(*client.has, following)) if _goes_on(record, last, following) else lost
    if not record.terminal:
        return client
    if record.status == COMPLETED and record.number != len(client.has):
        return lost
    return client._replace(told=record.status)


def _is_another(known: Start, start: Start | None) -> bool:
    """Return whether this is another start with the same number: Redis has lost the one that is known."""
    return start is not None and start.attempt == known.attempt and not start.same(known)


def _goes_on(record: Record, last: Token | None, following: Token) -> bool:
    """Return whether a reader may get this token: by numbers and nonces, as it cannot know what an engine has seen.

    Before it crosses from one start to another, it looks whether the stream still has the one that it has read.
    """
    number = last.number if last is not None else 0
    if following.number != number + 1:
        return False
    if last is None or following.start.same(last.start):
        return last is not None or following.start.base == 0
    is_there = any(last.start.same(start) for start in record.starts)
    return is_there and following.start.attempt > last.start.attempt and following.start.base == number
