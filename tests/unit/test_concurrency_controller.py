"""The controller of adaptive concurrency finds the number of requests that a simulated engine runs best."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from lifecycle.execution.concurrency_controller import ConcurrencyController, Window

LOW, HIGH = 1, 512
FIND_WINDOWS = 25  # from the lowest limit to the optimum, or from one optimum to another
BAND = (0.75, 1.75)  # times the optimum


@dataclass
class Engine:
    """Runs up to `capacity` requests at full speed; beyond that all become slower, and none is gained by more."""

    capacity: int
    first_event_secs: float = 0.2
    event_secs: float = 0.02
    noise: float = 0.0
    waits: bool = False  # it tells how many requests it holds back, and is not slower
    demand: int = HIGH

    def __post_init__(self) -> None:
        self._random = random.Random(7)

    def see(self, limit: int) -> Window:
        running = min(limit, self.demand)
        over = max(1.0, running / self.capacity)
        if self.waits:
            return Window(running >= limit, waiting=max(0, running - self.capacity))
        jitter = 1.0 + self._random.uniform(0, self.noise)
        return Window(running >= limit, self.first_event_secs * over * jitter, self.event_secs * over * jitter)

    def throughput(self, limit: int) -> float:
        """Return the throughput as a part of the most that is possible."""
        return min(limit, self.demand, self.capacity) / min(self.demand, self.capacity)


def run(controller: ConcurrencyController, engine: Engine, windows: int) -> list[int]:
    return [controller.close_window(engine.see(controller.limit)) for _ in range(windows)]


def is_found(limits: list[int], optimum: int) -> bool:
    return all(BAND[0] * optimum - 1 <= limit <= BAND[1] * optimum + 2 for limit in limits)


@pytest.mark.parametrize("waits", [False, True], ids=["by latency", "by what waits"])
@pytest.mark.parametrize("capacity", [1, 4, 20, 64, 200])
def test_it_finds_the_optimum_and_stays_there(capacity: int, waits: bool) -> None:
    engine = Engine(capacity, waits=waits)
    controller = ConcurrencyController(LOW, HIGH)
    run(controller, engine, FIND_WINDOWS)
    limits = run(controller, engine, 300)
    assert is_found(limits, capacity), limits
    assert sum(map(engine.throughput, limits)) / len(limits) > 0.95


@pytest.mark.parametrize("waits", [False, True], ids=["by latency", "by what waits"])
@pytest.mark.parametrize(("before", "after"), [(20, 80), (80, 20), (64, 8)])
def test_it_follows_when_the_optimum_changes(before: int, after: int, waits: bool) -> None:
    engine = Engine(before, waits=waits)
    controller = ConcurrencyController(LOW, HIGH)
    run(controller, engine, 100)
    engine.capacity = after
    run(controller, engine, FIND_WINDOWS)
    assert is_found(run(controller, engine, 300), after)


def test_other_work_with_a_longer_latency_is_not_taken_for_waiting() -> None:
    """Prompts that are ten times as long: fewer requests do not make them faster."""
    engine = Engine(20)
    controller = ConcurrencyController(LOW, HIGH)
    run(controller, engine, 100)
    engine.first_event_secs, engine.event_secs = 2.0, 0.05
    run(controller, engine, 2 * FIND_WINDOWS)
    assert is_found(run(controller, engine, 300), 20)


def test_noise_of_a_third_is_tolerated() -> None:
    engine = Engine(20, noise=0.33)
    controller = ConcurrencyController(LOW, HIGH)
    run(controller, engine, FIND_WINDOWS)
    limits = run(controller, engine, 300)
    assert sum(map(engine.throughput, limits)) / len(limits) > 0.85
    assert sum(limits) / len(limits) < BAND[1] * 20


def test_it_does_not_grow_where_nobody_asks_for_more() -> None:
    engine = Engine(100, demand=10)
    controller = ConcurrencyController(LOW, HIGH)
    assert set(run(controller, engine, 50)[-40:]) == {16}


def test_it_keeps_to_its_bounds() -> None:
    controller = ConcurrencyController(8, 24)
    assert controller.limit == 8
    assert max(run(controller, Engine(500), 50)) == 24
    assert min(run(controller, Engine(1), 50)) == 8


def test_what_is_not_known_changes_nothing() -> None:
    controller = ConcurrencyController(LOW, HIGH)
    assert controller.close_window(Window(False)) == LOW


def test_it_doubles_then_grows_by_the_root_and_is_cut_by_a_factor() -> None:
    controller = ConcurrencyController(LOW, HIGH)
    assert run(controller, Engine(HIGH), 5) == [2, 4, 8, 16, 32]
    assert controller.close_window(Window(True, waiting=30)) == 24
    grown = run(controller, Engine(HIGH), 5)
    assert grown == [28, 33, 38, 44, 50]
    assert controller.close_window(Window(True, 0.4, 0.02)) == 25, "twice the lowest latency, and at most to a half"
    assert controller.close_window(Window(True, 0.4, 0.02)) == 12
