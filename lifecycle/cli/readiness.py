"""Whether what `up` has started can be used: asked over HTTP, as a client would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx2

from lifecycle.supervisor import Condition

_TIMEOUT_SECS = 2.0


class Readiness:
    """Conditions for `Supervisor.wait_ready`. A context manager."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._http = httpx2.AsyncClient(timeout=_TIMEOUT_SECS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def conditions(self, pids: Mapping[str, int], model: str) -> dict[str, Condition]:
        """One for each child, under its name, frontends first; and one for the model."""
        children = iter(pids.items())
        conditions: dict[str, Condition] = {}
        for url, (name, pid) in zip(self._urls, children, strict=False):
            conditions[name] = partial(self._frontend_ready, url, pid)
        for name, pid in children:
            conditions[name] = partial(self._listed, "/v1/replicas", _is("pid", pid))
        conditions[f"model {model}"] = partial(self._listed, "/v1/models", _is("id", model))
        return conditions

    async def _frontend_ready(self, url: str, pid: int) -> bool:
        """It, and not somebody else on its port."""
        answer = await self._http.get(url + "/ready")
        return answer.status_code == httpx2.codes.OK and await self._listed("/v1/replicas", _is("pid", pid), url)

    async def _listed(self, path: str, wanted: Callable[[dict[str, Any]], bool], url: str = "") -> bool:
        answer = await self._http.get((url or self._urls[0]) + path)
        return answer.status_code == httpx2.codes.OK and any(map(wanted, answer.json()["data"]))


def _is(field: str, value: object) -> Callable[[dict[str, Any]], bool]:
    return lambda item: item.get(field) == value
