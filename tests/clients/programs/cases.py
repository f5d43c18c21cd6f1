"""Run named cases at each server, and print a line of JSON for each result."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
from pydantic import BaseModel

F = TypeVar("F", bound=Callable[[str], Any])
API_KEY = "none"
HELLO = "Say something."
RECORDINGS = sorted(path.stem for path in (Path(__file__).parents[2] / "recorded").glob("*.sse"))
_CASES: list[tuple[str, Callable[[str], Any]]] = []
_LEFT_SECS = 10.0
_POLL_SECS = 0.02


class Weather(BaseModel):
    """Tell the weather of a city for some days."""

    city: Literal["Paris", "Rome"]
    days: Literal[1, 2, 3]


class Clock(BaseModel):
    """Tell the time in a zone."""

    zone: Literal["UTC", "CET"]


def case(feature: str) -> Callable[[F], F]:
    """Register a function of the server's URL, with `/v1`, that returns what the library made of the answer."""

    def register(function: F) -> F:
        _CASES.append((feature, function))
        return function

    return register


def choices_of(recording: str) -> int:
    """Return how many choices a recorded answer has."""
    return 2 if "_n2_" in recording else 1


def model(name: str) -> str:
    """Return the name of a model, of the upstream that this run is about."""
    return os.environ.get("MODEL_PREFIX", "") + name


def elsewhere(url: str) -> str | None:
    """Return the base URL of another frontend than the one of `url`; None for the engine itself."""
    engine, *frontends = (each + "/v1" for each in sys.argv[2:])
    return None if url == engine else next(other for other in frontends if other != url)


def left() -> int:
    """Return how many unfinished answers their clients have left, as the replay server counts them."""
    return int(httpx2.get(sys.argv[1] + "/left", trust_env=False).json())


def upstream_is_left(before: int) -> bool:
    """Return whether the connection to the engine is closed soon."""
    give_up_at = time.monotonic() + _LEFT_SECS
    while left() == before:
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_SECS)
    return True


def raised(error: Exception, *attributes: str) -> dict[str, Any]:
    """Return the class of an error and these attributes, which it must have."""
    return {"raised": type(error).__name__, **{name: getattr(error, name) for name in attributes}}


def main() -> None:
    """Run each case at each server: `program REPLAY_URL URL…`. A case that fails says so in its result."""
    with asyncio.Runner() as runner:
        for url in sys.argv[2:]:
            for feature, function in _CASES:
                try:
                    result = function(url + "/v1")
                    if inspect.iscoroutine(result):
                        result = runner.run(result)
                except Exception as error:
                    result = {"failed": f"{type(error).__name__}: {error}"}
                print(json.dumps({"url": url, "feature": feature, "result": result}, default=str), flush=True)
