"""The links of one process to all servers of a deployment, each through a fault proxy.

The servers of Sentinels and of a Redis Cluster tell clients each other's addresses, so a process would find the way
past a proxy. Therefore each process has a loopback address of its own, at which a proxy listens for each server under
the server's own port. A node with `PER_PROCESS` names the others by their ports alone, which means the address that
was asked; a Sentinel's answers are changed on their way.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from tests.chaos.proxy import FaultProxy, Rule, Then

PER_PROCESS = {"cluster-preferred-endpoint-type": "unknown-endpoint"}
"""Configuration of the nodes of a Redis Cluster whose clients have such links."""

_LOOPBACK = "127.0.0.1"
_addresses = (f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 10), repeat=3))
"""Each is as long as `_LOOPBACK`, so that one can take the other's place in an answer."""

OpenLinks = Callable[[], Awaitable["Links"]]
"""Opens the links of one process that is to be started."""


class Links:
    """Break all of them with the methods here, or the one to a port with those of `to(port)`."""

    def __init__(self, url: str, proxies: Sequence[FaultProxy]) -> None:
        """`url`: for the process; `proxies`: one for each server."""
        self.url = url
        self._proxies = list(proxies)

    @classmethod
    async def to_one(cls, url: str) -> Self:
        """Open the link to the one server with this URL."""
        proxy = await FaultProxy(url).start()
        return cls(proxy.url, [proxy])

    @classmethod
    async def to_many(cls, url: str, ports: Sequence[int], sentinel_ports: Sequence[int] = ()) -> Self:
        """Open the links to all servers of a deployment on loopback; its nodes have `PER_PROCESS`."""
        address = next(_addresses)
        links = cls(url.replace(_LOOPBACK, address), [])
        try:
            for port in (*ports, *sentinel_ports):
                proxy = FaultProxy(f"redis://{_LOOPBACK}:{port}", address, port)
                if port in sentinel_ports:
                    proxy.rewritten = (_LOOPBACK.encode(), address.encode())
                links._proxies.append(await proxy.start())
        except BaseException:
            await links.close()
            raise
        return links

    @property
    def only(self) -> FaultProxy:
        """Return the link to a single server."""
        (proxy,) = self._proxies
        return proxy

    def to(self, port: int) -> FaultProxy:
        """Return the link to the server with this port."""
        return next(proxy for proxy in self._proxies if proxy.target_port == port)

    @property
    def refused(self) -> int:
        """Return how many connections have come while they were cut."""
        return sum(proxy.refused for proxy in self._proxies)

    def cut(self) -> None:
        for proxy in self._proxies:
            proxy.cut()

    def blackhole(self) -> None:
        for proxy in self._proxies:
            proxy.blackhole()

    def delay(self, secs: float) -> None:
        for proxy in self._proxies:
            proxy.delay_secs = secs

    def reset(self) -> None:
        for proxy in self._proxies:
            proxy.reset()

    def restore(self) -> None:
        for proxy in self._proxies:
            proxy.restore()

    def on_request(self, pattern: bytes, then: Then) -> Rule:
        """Break the connection whose process first sends this, to whichever server."""
        rule = Rule(pattern, then, times=1)
        for proxy in self._proxies:
            proxy.requests.append(rule)
        return rule

    def forget(self, rule: Rule) -> None:
        for proxy in self._proxies:
            proxy.requests.remove(rule)

    async def close(self) -> None:
        for proxy in self._proxies:
            await proxy.close()
