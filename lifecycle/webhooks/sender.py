"""Send one webhook over HTTP, to a checked address only."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import httpx2

from lifecycle.webhooks.signature import Signer
from lifecycle.webhooks.target import Target, is_public

_ADDRESSES = 4  # of one host that are tried
_MOST_READ_BYTES = 4096  # of the receiver's response, which says nothing beyond its status
_REASON_CHARS = 200
_GONE = 410  # by which a receiver asks for no more webhooks
_USER_AGENT = "lifecycle-tracker-webhooks"


class Sent(NamedTuple):
    """Say how a delivery went. `reason` is empty for a success; it holds no part of a URL and nothing of a response."""

    reason: str = ""
    is_final: bool = False  # repeating it is of no use


class WebhookSender:
    """Send webhooks. Each has a connection of its own, and its host's name is resolved anew.

    Redirects are not followed and cookies not kept. Proxies of the environment are not used: what a proxy connects to
    could not be checked. Certificates of the environment (SSL_CERT_FILE, SSL_CERT_DIR) are used.
    """

    def __init__(self, signer: Signer, *, allow_private: bool, timeout_secs: float) -> None:
        self._signer = signer
        self._allow_private = allow_private
        self._timeout_secs = timeout_secs
        # A kept connection would belong to an address, and so could be used for another host at the same address.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx2.AsyncHTTPTransport(
            verify=httpx2.create_ssl_context(), trust_env=False, http2=False, limits=limits
        )

    async def aclose(self) -> None:
        """Close what is still open."""
        await self._transport.aclose()

    async def send(self, url: str, event_id: str, body: bytes) -> Sent:
        """Sign and send one event, within the timeout."""
        try:
            async with asyncio.timeout(self._timeout_secs):
                target = Target.parse(url, allow_private=self._allow_private)
                return await self._send(target, event_id, body)
        except TimeoutError:
            return Sent(f"no response within {self._timeout_secs:g} s")
        except _Refused as refused:
            return Sent(str(refused))
        except ValueError as failure:
            return Sent(str(failure))
        except httpx2.ConnectError as failure:
            return Sent(f"no connection: {str(failure)[:_REASON_CHARS]}")
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as failure:
            return Sent(type(failure).__name__)  # its words may hold the URL

    async def _send(self, target: Target, event_id: str, body: bytes) -> Sent:
        addresses = await self._resolve(target)
        for address in addresses[:-1]:
            try:
                return await self._post(target, address, event_id, body, self._timeout_secs / len(addresses))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._post(target, addresses[-1], event_id, body, self._timeout_secs)

    async def _resolve(self, target: Target) -> list[IPv4Address | IPv6Address]:
        """Return the addresses of the host. Raises OSError; _Refused when one of them is not public."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise _Refused("the host has no address") from None
        addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
        if not addresses:
            raise _Refused("the host has no address")
        if not self._allow_private and not all(map(is_public, addresses)):
            raise _Refused("the host has an address that is not public")
        return addresses[:_ADDRESSES]

    async def _post(
        self, target: Target, address: IPv4Address | IPv6Address, event_id: str, body: bytes, connect_secs: float
    ) -> Sent:
        headers = {
            "Host": target.authority,
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "Connection": "close",
            **self._signer.headers(event_id, int(time.time()), body),
        }
        timeout = httpx2.Timeout(self._timeout_secs, connect=connect_secs)
        request = httpx2.Request(
            "POST",
            target.url_of(address),
            headers=headers,
            content=body,
            # The certificate must be that of the host, and not of its address.
            extensions={"timeout": timeout.as_dict(), "sni_hostname": target.host.rstrip(".")},
        )
        response = await self._transport.handle_async_request(request)
        try:
            await _read_a_little(response)
        finally:
            await response.aclose()
        if response.is_success:
            return Sent()
        return Sent(f"status {response.status_code}", is_final=response.status_code == _GONE)


class _Refused(Exception):
    """Raised when there is no address that may be connected to. It may be another one the next time."""


async def _read_a_little(response: httpx2.Response) -> None:
    """Let the receiver send a short response whole; the rest of a longer one is left unread."""
    read = 0
    async with aclosing(response.aiter_raw()) as parts:
        async for part in parts:
            read += len(part)
            if read >= _MOST_READ_BYTES:
                return
