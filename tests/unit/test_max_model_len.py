"""The longest prompt and answer of a model, as its engines declare it and `GET /v1/models` shows it."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.execution.declarations import check_max_model_len, max_model_lens
from lifecycle.execution.engine import EngineLoadError
from lifecycle.store.worker_roster import max_model_lens_of, workers_of
from lifecycle.types import Role
from tests.joining import join
from tests.unit.world import LEASE_SECS, World


class Declaring:
    def __init__(self, max_model_len: Any) -> None:
        self.max_model_len = max_model_len

    def __call__(self, request: dict[str, Any], context: object) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("declared", "found"),
    [(4096, {"a": 4096, "b": 4096}), ({"a": 4096, "c": 1}, {"a": 4096}), (None, {}), (True, {}), ({"a": 0}, {})],
)
def test_an_engine_declares_one_length_or_one_for_each_model(declared: Any, found: dict[str, int]) -> None:
    assert max_model_lens(Declaring(declared), ["a", "b"]) == found


@pytest.mark.parametrize("declared", ["4096", 0, -1, 1.5, True, {"a": "4096"}])
def test_what_is_no_length_stops_the_start(declared: Any) -> None:
    with pytest.raises(EngineLoadError, match=r"max_model_len is .* positive int"):
        check_max_model_len(Declaring(declared))


@pytest.mark.parametrize("declared", [4096, None, {"a": 4096}, {}])
def test_a_length_is_accepted(declared: Any) -> None:
    check_max_model_len(Declaring(declared))


async def test_of_several_workers_the_smallest_length_counts(world: World) -> None:
    for name, lengths in {"w0": {"m": 8192, "n": 100}, "w1": {"m": 4096}}.items():
        await join(world.store, name, Role.WORKER, {"models": ["m"], "max_model_len": lengths}, ["m"])
    assert max_model_lens_of(workers_of(await world.store.roster(), LEASE_SECS)) == {"m": 4096, "n": 100}
