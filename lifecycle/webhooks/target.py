"""Check where webhooks are sent: their URLs, the hosts that a caller may name, and the addresses behind them.

A receiver's address is checked after its name has been resolved, and the connection is made to the address that was
checked. A name that resolves to another address the next time therefore leads nowhere else.
"""

from __future__ import annotations

import functools
import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Self
from urllib.parse import urlsplit

MAX_URL_CHARS = 2048
_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo, 6to4: they lead to IPv4 addresses
_DOCUMENTATION = IPv6Network("3fff::/20")
_RELAY = IPv4Address("192.88.99.0")  # the first of the /24 of 6to4 relays


class Target(NamedTuple):
    """Hold the checked URL of a receiver."""

    scheme: str
    host: str  # in lower case; an IPv6 address without brackets
    port: int
    path: str  # with the query

    @classmethod
    def parse(cls, url: str, *, allow_private: bool) -> Self:
        """Check a URL. Raises ValueError with a message that shows no part of it: a URL may hold secrets.

        `https` is required unless private addresses are allowed. A host that is an address is checked at once.
        """
        if len(url) > MAX_URL_CHARS:
            raise ValueError(f"the URL has {len(url)} characters; use at most {MAX_URL_CHARS}")
        if not _VISIBLE.fullmatch(url) or "\\" in url:
            raise ValueError("the URL must have visible ASCII characters only, and no backslash")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("the URL is malformed; use https://host/path") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("the URL must begin with https:// and a host")
        if parts.scheme == "http" and not allow_private:
            raise ValueError("the URL must begin with https://")
        if "@" in parts.netloc:
            raise ValueError("the URL must not have credentials; the signature shows who sends it")
        if "#" in url:
            raise ValueError("the URL must not have a fragment (#)")
        if port == 0:
            raise ValueError("the URL must not have the port 0")
        host = _checked_host(parts.hostname.lower(), allow_private)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """Return the value of the header `Host`."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return _bracketed(self.host) + port

    @property
    def url(self) -> str:
        """Return the URL in its canonical form."""
        return f"{self.origin}{self.path}"

    @property
    def origin(self) -> str:
        """Return the URL up to the path. It has no secrets, so it may be logged."""
        return f"{self.scheme}://{self.authority}"

    def url_of(self, address: IPv4Address | IPv6Address) -> str:
        """Return the URL with this address instead of the host."""
        return f"{self.scheme}://{_bracketed(str(address))}:{self.port}{self.path}"


class HostList(NamedTuple):
    """Hold the hosts that LIFECYCLE_WEBHOOK_HOSTS names."""

    names: frozenset[str]
    suffixes: tuple[str, ...]  # of the names that begin with `*.`

    @classmethod
    @functools.lru_cache(maxsize=16)
    def parse(cls, text: str) -> Self:
        """Read host names and addresses, separated by commas; `*.example.com` stands for each name below it.

        Raises ValueError for what is no host.
        """
        words = [word.strip().lower() for word in text.split(",") if word.strip()]
        for word in words:
            plain = word.removeprefix("*.")
            if not _HOST.fullmatch(plain) and _address(plain.strip("[]")) is None:
                raise ValueError(f"{word!r} is not a host; name hosts without scheme and port, separated by commas")
        suffixes = tuple(word.removeprefix("*") for word in words if word.startswith("*."))
        return cls(frozenset(word.strip("[]") for word in words if not word.startswith("*.")), suffixes)

    def allows(self, host: str) -> bool:
        """Return whether a caller may name this host."""
        name = host.rstrip(".")
        return name in self.names or name.endswith(self.suffixes)


def origin_of(url: str) -> str:
    """Return the part of a URL that may be logged: scheme, host and port."""
    return Target.parse(url, allow_private=True).origin


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the public internet: no private, loopback, link-local or other special one.

    An IPv6 address that stands for an IPv4 address is as public as that one. Addresses of tunnels are not public.
    """
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None and address in _TRANSLATED:
            mapped = IPv4Address(int(address) & 0xFFFFFFFF)
        if mapped is not None:
            return is_public(mapped)
        if address not in _GLOBAL_UNICAST or address in _DOCUMENTATION or any(address in net for net in _TUNNELS):
            return False
    elif int(address) >> 8 == int(_RELAY) >> 8:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _checked_host(host: str, allow_private: bool) -> str:
    address = _address(host)
    if address is None and not _HOST.fullmatch(host.rstrip(".")):
        raise ValueError("the host of the URL is malformed; write an international name in its ASCII form (xn--…)")
    if address is not None and not allow_private and not is_public(address):
        raise ValueError("the host of the URL is not a public address")
    return host


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
