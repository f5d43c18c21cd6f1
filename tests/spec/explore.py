"""Visit every state that can be reached, and say what is wrong.

Steps of one request depend on that request and on what all share, not on other requests; so they are computed once for
each such pair. States that differ only in the order of requests, workers or frontends are one.

Every accepted request ends if faults end and if whatever is due happens some time. No further fairness is needed: the
steps that are due lead in no circle, and where none is due every accepted request has ended.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.spec import frontends, invariants, redis, workers
from tests.spec.life import Life, Replica, Shared, Size, Step, View
from tests.spec.record import Record
from tests.spec.symmetry import Renaming, renamings

State = tuple[int, ...]  # of what all share, then of each request, as numbers


@dataclass
class Found:
    """Hold what an exploration has found."""

    states: int = 0
    transitions: int = 0
    violation: str = ""
    story: list[str] = field(default_factory=list)  # the steps that lead to it


class _Violated(Exception):
    """Raised when something is wrong, in this state or with a step from it."""

    def __init__(self, what: str, state: int = -1) -> None:
        super().__init__(what)
        self.state = state


class Explorer:
    """Explores the world of one size."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._lives: list[Life] = []
        self._numbers: dict[Life, int] = {}
        self._shared: list[Shared] = []
        self._shared_numbers: dict[Shared, int] = {}
        self._steps: dict[tuple[int, int, tuple[bool, ...]], list[tuple[str, bool, int, int]]] = {}
        self._busy: dict[int, tuple[bool, ...]] = {}
        self._renamed: list[tuple[Renaming, dict[int, int], dict[int, int]]] = [
            (renaming, {}, {}) for renaming in renamings(size.frontends, size.workers)
        ]

    def run(self) -> Found:
        """Visit every state, breadth first."""
        begin = self._begin()
        known: dict[State, int] = {begin: 0}
        order = [begin]
        came_from = array("l", [-1])
        due_from, due_to = array("l"), array("l")
        found = Found()
        number = 0
        try:
            while number < len(order):
                for _, due, after in self._steps_from(order[number]):
                    found.transitions += 1
                    index = known.get(after)
                    if index is None:
                        index = known[after] = len(order)
                        order.append(after)
                        came_from.append(number)
                    if due:
                        due_from.append(number)
                        due_to.append(index)
                number += 1
            self._check_ends(order, due_from, due_to)
        except _Violated as violated:
            found.violation = str(violated)
            found.story = self._story(order, came_from, violated.state if violated.state >= 0 else number)
        found.states = len(order)
        return found

    # States as numbers

    def _begin(self) -> State:
        size = self._size
        shared = Shared(
            (Replica(),) * size.frontends,
            (Replica(),) * size.workers,
            crashes=size.crashes,
            pauses=size.pauses,
            failovers=size.failovers,
            cancels=size.cancels,
            returns=size.returns,
        )
        life = self._number(Life(Record(), None, (View(),) * size.workers))
        return (self._shared_number(shared), *[life] * size.requests)

    def _number(self, life: Life) -> int:
        number = self._numbers.get(life)
        if number is None:
            if wrong := next(invariants.of_state(self._size, life), ""):
                raise _Violated(wrong)
            number = self._numbers[life] = len(self._lives)
            self._lives.append(life)
            self._busy[number] = tuple(view.busy for view in life.views)
        return number

    def _shared_number(self, shared: Shared) -> int:
        number = self._shared_numbers.get(shared)
        if number is None:
            number = self._shared_numbers[shared] = len(self._shared)
            self._shared.append(shared)
        return number

    # Steps

    def _steps_from(self, state: State) -> Iterator[tuple[str, bool, State]]:
        shared, *lives = state
        busy_of = [self._busy[life] for life in lives]
        busy = tuple(map(any, zip(*busy_of, strict=True)))
        for index, life in enumerate(lives):
            if index and life == lives[index - 1]:
                continue  # the same request once more
            others = lives[:index] + lives[index + 1 :]
            for name, due, shared_after, life_after in self._steps_of(shared, life, busy):
                after = [*others, life_after]
                if self._gives_up(shared, shared_after):
                    after = [self._number(self._lives[number]._replace(replicated=None)) for number in after]
                if (found := self._chosen(shared_after, after)) != state:
                    yield name, due, found
        whole = redis.of_all(self._shared[shared], tuple(self._lives[life] for life in lives))
        for name, due, (shared_next, lives_next) in whole:
            yield name, due, self._chosen(self._shared_number(shared_next), list(map(self._number, lives_next)))

    def _gives_up(self, before: int, after: int) -> bool:
        """Return whether the server that follows is not promoted any more."""
        shared = self._shared[after]
        return shared.fenced_there is None and self._shared[before].fenced_there is not None

    def _chosen(self, shared: int, lives: list[int]) -> State:
        """Return the state that stands for all that differ only in an order."""
        best = (shared, *sorted(lives))
        for renaming, shared_as, lives_as in self._renamed:
            shared_then = shared_as.get(shared)
            if shared_then is None:
                shared_then = shared_as[shared] = self._shared_number(renaming.of_shared(self._shared[shared]))
            if shared_then > best[0]:
                continue
            then = []
            for life in lives:
                life_then = lives_as.get(life)
                if life_then is None:
                    life_then = lives_as[life] = self._number(renaming.of_life(self._lives[life]))
                then.append(life_then)
            best = min(best, (shared_then, *sorted(then)))
        return best

    def _steps_of(self, shared: int, life: int, busy: tuple[bool, ...]) -> list[tuple[str, bool, int, int]]:
        key = (shared, life, busy)
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = []
            for step in self._checked(self._shared[shared], self._lives[life], busy):
                wrote = step.life.record != self._lives[life].record
                after = redis.note_write(self._size, step.shared) if wrote else step.shared
                found.append((step.name, step.due, self._shared_number(after), self._number(step.life)))
        return found

    def _checked(self, shared: Shared, life: Life, busy: tuple[bool, ...]) -> Iterator[Step]:
        for step in self._all_steps(shared, life, busy):
            if wrong := next(invariants.of_step(shared, life, step.life, step.by), ""):
                raise _Violated(f"{step.name}: {wrong}")
            yield step

    def _all_steps(self, shared: Shared, life: Life, busy: tuple[bool, ...]) -> Iterator[Step]:
        yield from workers.steps(self._size, shared, life, busy)
        yield from frontends.steps(self._size, shared, life)
        yield from redis.steps(self._size, shared, life)

    # Ends

    def _check_ends(self, order: list[State], due_from: array[int], due_to: array[int]) -> None:
        """Raise _Violated unless the steps that are due lead in no circle, and to the end of every accepted request.

        States from which nothing more is due are taken away again and again, until none is left.
        """
        left = array("l", bytes(8 * len(order)))  # how many steps that are due lead on from each state
        first = array("l", bytes(8 * (len(order) + 1)))  # where the steps that lead to each state begin in `sources`
        for source, target in zip(due_from, due_to, strict=True):
            left[source] += 1
            first[target + 1] += 1
        for number in range(len(order)):
            first[number + 1] += first[number]
        sources, at = array("l", bytes(8 * len(due_from))), array("l", first)
        for source, target in zip(due_from, due_to, strict=True):
            sources[at[target]] = source
            at[target] += 1
        ready = [number for number in range(len(order)) if not left[number]]
        for number in ready:
            for life in order[number][1:]:
                if wrong := next(invariants.of_end(self._lives[life]), ""):
                    raise _Violated(wrong, number)
        for number in ready:  # it grows meanwhile
            for source in sources[first[number] : first[number + 1]]:
                left[source] -= 1
                if not left[source]:
                    ready.append(source)
        if len(ready) < len(order):
            raise _Violated("what is due may go in a circle", next(number for number, more in enumerate(left) if more))

    def _story(self, order: list[State], came_from: array[int], number: int) -> list[str]:
        path = [number]
        while came_from[path[-1]] >= 0:
            path.append(came_from[path[-1]])
        path.reverse()
        story = []
        for before, after in pairwise(path):
            name = next(name for name, _, to in self._steps_from(order[before]) if to == order[after])
            story.append(name)
        return story
