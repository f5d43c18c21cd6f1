"""The soak draws every fault before it draws one again, and the same ones from the same seed."""

from __future__ import annotations

from collections import Counter

from tests.chaos.soak.fault import Bag, Fault, Struck


async def _nothing() -> Struck:
    return Struck("nothing")


_FAULTS = [Fault(f"fault {number}", _nothing) for number in range(20)]


def _drawn(seed: int, count: int) -> list[str]:
    bag = Bag(_FAULTS, seed)
    return [bag.draw().kind for _ in range(count)]


def test_each_fault_is_drawn_before_one_comes_again() -> None:
    drawn = _drawn(1, 3 * len(_FAULTS))
    assert set(Counter(drawn[: len(_FAULTS)]).values()) == {1}
    assert set(Counter(drawn).values()) == {3}


def test_the_seed_decides_the_order() -> None:
    assert _drawn(1, 40) == _drawn(1, 40)
    assert _drawn(1, 40) != _drawn(2, 40)
