"""Say what happens by itself: processes die, leases end and are cleaned up after, and Redis loses its last writes."""

from __future__ import annotations

from collections.abc import Iterator

from tests.spec import scripts, workers
from tests.spec.life import Life, Shared, Size, Step
from tests.spec.record import QUEUED, Record


def steps(size: Size, shared: Shared, life: Life) -> Iterator[Step]:
    """Yield what is cleaned up of one request after replicas whose leases have ended."""
    record = life.record
    for number, worker in enumerate(shared.workers):
        if worker.fenced:
            reaped, answer = scripts.reap_worker(record, number, size.max_attempts)
            if answer != "nothing":
                yield Step(f"reap worker, {answer}", True, life._replace(record=reaped), shared)
    for number, frontend in enumerate(shared.frontends):
        if frontend.fenced:
            successors = [other for other, replica in enumerate(shared.frontends) if not replica.fenced]
            for new_owner in (None, *successors[:1]):
                reaped, answer = scripts.reap_frontend(record, number, new_owner)
                if reaped != record:
                    yield Step(f"reap frontend, {answer}", True, life._replace(record=reaped), shared)
    if record.status == QUEUED and all(worker.fenced for worker in shared.workers):
        swept, answer = scripts.sweep_unserved(record)
        yield Step("sweep", True, life._replace(record=swept), shared)


World = tuple[Shared, tuple[Life, ...]]


def of_all(shared: Shared, lives: tuple[Life, ...]) -> Iterator[tuple[str, bool, World]]:
    """Yield steps that concern every request at once: their names, whether they are due, and the world afterwards."""
    for role in ("frontend", "worker"):
        replicas = shared.frontends if role == "frontend" else shared.workers
        for number, replica in enumerate(replicas):
            with_replica = shared.with_frontend if role == "frontend" else shared.with_worker
            if replica.lives and not replica.knows and shared.crashes:
                dead = with_replica(number, lives=False)._replace(crashes=shared.crashes - 1)
                yield f"{role} crashes", False, (dead, _without(lives, role, number))
            if not replica.fenced and (not replica.lives or shared.pauses):
                left = shared.pauses - replica.lives
                expired = with_replica(number, fenced=True)._replace(pauses=left)
                yield f"{role}'s lease ends", not replica.lives, (expired, lives)
            if replica.lives and replica.fenced and not replica.knows:
                told = with_replica(number, knows=True)
                yield f"{role} hears that its lease has ended", True, (told, _without(lives, role, number))
    for number, worker in enumerate(shared.workers):
        if worker.lives and worker.outdated and not worker.fenced:
            found = shared.with_worker(number, outdated=False)
            after = tuple(workers.find_out(life, number) for life in lives)
            yield "worker finds out that data was lost", True, (found, after)
    yield from _failover(shared, lives)


def _without(lives: tuple[Life, ...], role: str, number: int) -> tuple[Life, ...]:
    """Forget what a worker knows: its process has died, or has let go of everything."""
    if role == "frontend":
        return lives
    return tuple(life.with_view(number, taking=0, attempt=None, report=None) for life in lives)


def _failover(shared: Shared, lives: tuple[Life, ...]) -> Iterator[tuple[str, bool, World]]:
    """A server that follows Redis stops receiving, and later takes its place."""
    if shared.fenced_there is None and shared.failovers:
        fenced = tuple(replica.fenced for replica in (*shared.frontends, *shared.workers))
        behind = shared._replace(fenced_there=fenced, failovers=shared.failovers - 1)
        yield (
            "the replica stops following",
            False,
            (behind, tuple(life._replace(replicated=life.record) for life in lives)),
        )
    elif shared.fenced_there is not None:
        frontends = tuple(
            replica._replace(fenced=fenced or replica.knows)
            for replica, fenced in zip(shared.frontends, shared.fenced_there, strict=False)
        )
        workers_ = tuple(
            replica._replace(fenced=fenced or replica.knows, outdated=replica.lives)
            for replica, fenced in zip(shared.workers, shared.fenced_there[len(frontends) :], strict=True)
        )
        promoted = shared._replace(frontends=frontends, workers=workers_, fenced_there=None, missed=0)
        yield "the replica is promoted", False, (promoted, tuple(map(_restored, lives)))


def note_write(size: Size, shared: Shared) -> Shared:
    """Count a write that the server that follows does not receive. One that has missed too many is not promoted."""
    if shared.fenced_there is None:
        return shared
    if shared.missed == size.lost_writes:
        return shared._replace(fenced_there=None, missed=0)
    return shared._replace(missed=shared.missed + 1)


def _restored(life: Life) -> Life:
    record = life.replicated or Record()
    return life._replace(record=record, replicated=None)
