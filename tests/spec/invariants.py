"""Say what must hold in every state, and of every step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tests.spec.life import Life, Shared, Size
from tests.spec.record import COMPLETED, QUEUED, RUNNING, is_whole, splice_in


def of_state(size: Size, life: Life) -> Iterator[str]:
    """Yield what is wrong with one request."""
    record, client = life.record, life.client
    if record.ends != record.terminal:
        yield f"it is {record.status}, and {record.ends} ends were counted"
    if record.counted != ((record.frontend, record.status) if record.inflight else None):
        yield f"it is {record.status} of frontend {record.frontend}, and counted as {record.counted}"
    if record.terminal and not record.closed:
        yield "it has ended, and its stream is open"
    if record.status == QUEUED and (record.cancel or (record.text and not record.resumable)):
        yield "it is queued, and no engine may run it any more"
    if any(token.number >= following.number for token, following in pairwise(record.text)):
        yield "its stream has a token twice"
    if record.status == COMPLETED and (len(record.text) != size.tokens or not is_whole(record.text)):
        yield "it has completed without all of its tokens"
    for report in filter(None, (view.report for view in life.views)):
        if record.status == COMPLETED != report.status and report.start.same(record.start):
            yield f"a worker knows that this attempt has {report.status}, and it has completed"
    if record.status == COMPLETED and (splice := splice_in(record.text)):
        yield f"it has completed with the tokens of two answers: {splice}"
    if splice := splice_in(client.has):
        yield f"its client has the tokens of two answers: {splice}"
    if client.told == COMPLETED and len(client.has) != size.tokens:
        yield "its client was told that it has completed, and lacks tokens"


def of_step(shared: Shared, before: Life, after: Life, by: int) -> Iterator[str]:
    """Yield what is wrong with a step that is no loss of data."""
    was, now = before.record, after.record
    if was.terminal and now != was:
        yield f"it had ended as {was.status}, and has changed"
    if (was.closed or was.cancel == "kill") and now.text != was.text:
        yield "tokens were appended behind a cancel"
    if was.text != now.text[: len(was.text)]:
        yield "tokens have changed"
    brought = now.text[len(was.text) :] if now.terminal else ()
    if brought and brought[0].number != was.number + 1:
        yield "its end has brought tokens that do not follow those before"
    fenced = by >= 0 and shared.workers[by].fenced
    if fenced and now != was and not (was.status == RUNNING and was.worker == by and now.status != RUNNING):
        yield "a worker whose lease has ended has done more than to end what is still its own"
    taken = was.status == RUNNING and now.status == QUEUED and by < 0
    if taken and not shared.workers[int(was.worker)].fenced:
        yield "it was taken from a worker that has its lease"
    if after.client.confirmed and not before.client.confirmed and not now.terminal:
        yield "a cancel was confirmed before the request has ended"


def of_end(life: Life) -> Iterator[str]:
    """Yield what is wrong when nothing more happens."""
    if life.record.inflight:
        yield f"it stays {life.record.status} for ever"
