"""Put virtual time and seeded randomness in the place of the system's for the time of one simulation."""

from __future__ import annotations

import base64
import functools
import gc
import importlib.metadata
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.simulation.loop import VirtualLoop
from tests.simulation.process import current

_version = functools.cache(importlib.metadata.version)

EPOCH_SECS = 1_700_000_000.0  # the Unix time at which every simulation begins


@contextmanager
def deterministic(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Let `time`, `random` and `secrets` depend on the loop and the seed only."""
    dice = random.Random(f"secrets {seed}")

    def wall() -> float:
        process = current()
        return EPOCH_SECS + loop.time() + (process.clock_offset_secs if process is not None else 0.0)

    def token_hex(size: int = 32) -> str:
        return dice.randbytes(size).hex()

    def token_urlsafe(size: int = 32) -> str:
        return base64.urlsafe_b64encode(dice.randbytes(size)).rstrip(b"=").decode()

    replaced: list[tuple[Any, str, Any]] = [
        (
            importlib.metadata,
            "version",
            _version,
        ),  # redis-py asks for its own at each connect, which takes a millisecond
        (time, "monotonic", loop.time),
        (time, "time", wall),
        (time, "time_ns", lambda: int(wall() * 1e9)),
        (secrets, "token_hex", token_hex),
        (secrets, "token_urlsafe", token_urlsafe),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    state = random.getstate()
    random.seed(f"random {seed}")
    gc.disable()  # or the moment of a collection would decide when a lost object is noticed
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        random.setstate(state)
        gc.enable()
