"""States that differ only in the order of requests, workers or frontends behave alike: one stands for all of them."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple, TypeVar

from tests.spec.life import Life, Shared
from tests.spec.record import Record

Part = TypeVar("Part")


class Renaming(NamedTuple):
    """Other numbers for frontends and for workers: the new number of each old one."""

    frontends: tuple[int, ...]
    workers: tuple[int, ...]

    def of_life(self, life: Life) -> Life:
        """Return a request as it is under the other numbers."""
        client = life.client
        return life._replace(
            record=self._of_record(life.record),
            replicated=self._of_record(life.replicated) if life.replicated is not None else None,
            views=_reordered(life.views, self.workers),
            client=client._replace(at=self.frontends[client.at]) if client.told else client,
        )

    def of_shared(self, shared: Shared) -> Shared:
        """Return what all share as it is under the other numbers."""
        there = shared.fenced_there
        if there is not None:
            count = len(self.frontends)
            there = (*_reordered(there[:count], self.frontends), *_reordered(there[count:], self.workers))
        return shared._replace(
            frontends=_reordered(shared.frontends, self.frontends),
            workers=_reordered(shared.workers, self.workers),
            fenced_there=there,
        )

    def _of_record(self, record: Record) -> Record:
        if record.frontend == "":
            return record
        counted = record.counted
        return record._replace(
            frontend=self.frontends[int(record.frontend)],
            worker=self.workers[int(record.worker)] if record.worker != "" else "",
            counted=(self.frontends[int(counted[0])], counted[1]) if counted is not None else None,
        )


def renamings(frontends: int, workers: int) -> list[Renaming]:
    """Return every renaming but the one that changes nothing."""
    every = [Renaming(f, w) for f in permutations(range(frontends)) for w in permutations(range(workers))]
    return every[1:]


def _reordered(parts: tuple[Part, ...], numbers: tuple[int, ...]) -> tuple[Part, ...]:
    by_number = dict(zip(numbers, parts, strict=True))
    return tuple(by_number[number] for number in range(len(parts)))
