"""Say what workers do with one request.

Each call of a script has two outcomes: the worker gets the answer, or it never does. In the second case it knows
nothing, and repeats the call. A worker whose lease has ended, and which does not know it, goes on as before.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.spec import scripts
from tests.spec.life import Attempt, Finish, Life, Report, Shared, Size, Step
from tests.spec.record import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, Record


def steps(size: Size, shared: Shared, life: Life, busy: tuple[bool, ...]) -> Iterator[Step]:
    """Yield the steps of each living worker. `busy` says which of them run something already."""
    for worker, replica in enumerate(shared.workers):
        if not replica.lives or replica.knows:
            continue
        view = life.views[worker]
        if view.attempt is not None:
            yield from _of_attempt(size, shared, life, worker, view.attempt)
        elif view.taking or (not busy[worker] and life.record.status == QUEUED):
            yield from _takes(size, shared, life, worker)
        if not replica.fenced:
            yield from _reconciles(size, shared, life, worker)


def _takes(size: Size, shared: Shared, life: Life, worker: int) -> Iterator[Step]:
    view, fenced = life.views[worker], shared.workers[worker].fenced
    nonce = view.taking or life.nonces + 1
    record, answer = scripts.take(life.record, worker, nonce, fenced=fenced, resumable=size.resumable)
    after = life._replace(record=record, nonces=max(life.nonces, nonce))
    if answer == "run":
        yield Step("take, unanswered", False, after.with_view(worker, taking=nonce), shared, worker)
        assert record.start is not None
        if view.report is not None and not view.report.start.same(record.start):
            yield Step("take, of what has ended here", True, _end_restarted(after, worker), shared, worker)
            return
        attempt = Attempt(record.start, record.start.base)
        yield Step("take", True, after.with_view(worker, taking=0, attempt=attempt), shared, worker)
    elif answer != "fenced":
        yield Step(f"take, {answer}", True, after.with_view(worker, taking=0), shared, worker)


def _end_restarted(life: Life, worker: int) -> Life:
    """End a request that this worker has ended before: Redis has lost that end and its start."""
    report, start = life.views[worker].report, life.record.start
    assert report is not None
    assert start is not None
    record, answer = scripts.finish(life.record, worker, start, report.status, report.last)
    if answer == "incomplete":
        record, _ = scripts.finish(record, worker, start, FAILED, record.number)
    return life._replace(record=record).with_view(worker, taking=0, attempt=None)


def _of_attempt(size: Size, shared: Shared, life: Life, worker: int, attempt: Attempt) -> Iterator[Step]:
    if attempt.finish is not None:
        yield from _finishes(shared, life, worker, attempt, attempt.finish)
        return
    if attempt.killed or attempt.lost:
        ended = Finish(CANCELLED if attempt.killed else FAILED, attempt.made, 0)
        yield from _finishes(shared, life, worker, attempt, ended)
    elif attempt.made == size.tokens:
        yield from _finishes(shared, life, worker, attempt, Finish(COMPLETED, attempt.made, 0))
    else:
        yield from _appends(shared, life, worker, attempt)
        if attempt.made == size.tokens - 1:
            for status in (COMPLETED, FAILED) if size.fails else (COMPLETED,):
                yield from _finishes(shared, life, worker, attempt, Finish(status, size.tokens, 1))
    if shared.returns and not attempt.killed:
        for uses_attempt in (False, True):
            record, answer = scripts.requeue(
                life.record, worker, attempt.start.attempt, size.max_attempts, uses_attempt=uses_attempt
            )
            if answer in ("requeued", "ended") and life.record.runs(worker, attempt.start):
                after = life._replace(record=record).with_view(worker, attempt=None)
                yield Step(f"give back, {answer}", False, after, shared._replace(returns=shared.returns - 1), worker)


def _appends(shared: Shared, life: Life, worker: int, attempt: Attempt) -> Iterator[Step]:
    fenced, number = shared.workers[worker].fenced, attempt.made + 1
    before = attempt.made if attempt.checks else None
    record, answer = scripts.append(life.record, worker, attempt.start, number, fenced=fenced, before=before)
    after = life._replace(record=record)
    if answer == "accepted":
        yield Step("append, unanswered", False, after, shared, worker)
        attempt = attempt._replace(made=number, checks=False)
    elif answer == "gone":
        attempt = attempt._replace(lost=True)
    elif not fenced:  # it hears of its lease by itself
        attempt = attempt._replace(killed=True)
    yield Step(f"append, {answer}", True, after.with_view(worker, attempt=attempt), shared, worker)


def _finishes(shared: Shared, life: Life, worker: int, attempt: Attempt, ended: Finish) -> Iterator[Step]:
    record, answer = scripts.finish(life.record, worker, attempt.start, *ended)
    after = life._replace(record=record)
    sent = after.with_view(worker, attempt=attempt._replace(finish=ended))
    yield Step("finish, unanswered", False, sent, shared, worker)
    if answer == "incomplete":
        after = after.with_view(worker, attempt=attempt._replace(lost=True, finish=None))
    elif answer in ("done", "already"):
        report = Report(attempt.start, record.status, ended.last)
        after = after.with_view(worker, attempt=None, report=report)
    else:
        after = _reports_lost_start(after.with_view(worker, attempt=None), attempt)
        worker = -1  # anybody may report a start that was lost
    yield Step(f"finish, {answer}", True, after, shared, worker)


def _reports_lost_start(life: Life, attempt: Attempt) -> Life:
    if attempt.made == attempt.start.base:
        return life  # nobody has read anything of it
    return life._replace(record=scripts.lost_start(life.record, attempt.start, FAILED)[0])


def _reconciles(size: Size, shared: Shared, life: Life, worker: int) -> Iterator[Step]:
    """Yield what a heartbeat makes of differences between the worker and Redis."""
    view, record = life.views[worker], life.record
    attempt = view.attempt
    if attempt is not None and not attempt.killed and (record.cancel or not record.runs(worker, attempt.start)):
        killed = life.with_view(worker, attempt=attempt._replace(killed=True))
        yield Step("hear of the cancel, or that it is not its request", True, killed, shared, worker)
    if attempt is None and record.status == RUNNING and record.worker == worker and not _is_taking(record, view.taking):
        yield Step("give back what does not run here", True, _end_or_give_back(size, life, worker), shared, worker)


def _is_taking(record: Record, nonce: int) -> bool:
    return record.start is not None and record.start.nonce == nonce


def _end_or_give_back(size: Size, life: Life, worker: int) -> Life:
    record, report = life.record, life.views[worker].report
    if report is not None and report.start.same(record.start):
        return _reported_again(life, worker, report)
    return life._replace(
        record=scripts.requeue(record, worker, record.attempt, size.max_attempts, uses_attempt=False)[0]
    )


def _reported_again(life: Life, worker: int, report: Report) -> Life:
    record, answer = scripts.finish(life.record, worker, report.start, report.status, report.last)
    if answer == "incomplete":
        record, _ = scripts.finish(record, worker, report.start, FAILED, record.number)
    return life._replace(record=record)


def find_out(life: Life, worker: int) -> Life:
    """A worker finds out that Redis has lost data: it reports its ends again, and checks its streams."""
    view = life.views[worker]
    if view.attempt is not None:
        life = life.with_view(worker, attempt=view.attempt._replace(checks=True))
    record, report = life.record, view.report
    if report is None or not record.inflight:
        return life
    if record.runs(worker, report.start):
        return _reported_again(life, worker, report)
    if report.start.same(record.start):
        return life  # it was queued again behind that start
    status = CANCELLED if report.status == CANCELLED else FAILED
    return life._replace(record=scripts.lost_start(record, report.start, status)[0])
