"""Keep other sites' pages away from a frontend that asks for no API key.

Any page that a user visits can post to an address of the user's machine, and can read the answers once its own name
means that address (DNS rebinding). Browsers say in `Host`, `Origin` and `Sec-Fetch-Site` where a call comes from, and
pages cannot change these headers.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from frontend.edge.cors import Cors
from frontend.transport.headers import Headers
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import Settings
from lifecycle.site_names import parse_hosts
from lifecycle.types import ErrorType

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class OwnSite:
    """Check that a call is for this machine, and that no other site's page sent it."""

    def __init__(self, settings: Settings, cors: Cors) -> None:
        self._hosts = parse_hosts(settings.allowed_hosts)
        self._cors = cors
        self._is_own_host = lru_cache(256)(self._is_own)

    def check(self, method: str, headers: Headers) -> None:
        """Raises ApiError: 421 for a `Host` of another machine, 403 for a call that another site's page sent."""
        host = headers.get("host")
        if host is not None and not self._is_own_host(host):
            raise ApiError(
                ErrorType.VALIDATION,
                f"Without API keys this frontend serves calls to localhost only, and the Host is {host[:256]!r}: name "
                "it in LIFECYCLE_ALLOWED_HOSTS, or set LIFECYCLE_API_KEYS",
                status=421,
                code="host_not_allowed",
            )
        if method not in _SAFE:
            self._check_origin(headers)

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None:
            if headers.get("sec-fetch-site", "") not in _OTHER_SITES:
                return
            origin = "another site"
        elif self._is_own_origin(origin, headers.get("host", "")) or self._cors.allows(origin):
            return
        raise ApiError(
            ErrorType.VALIDATION,
            f"A page of {origin[:256]!r} sent this call, and this frontend has no API keys: name the page's origin in "
            "LIFECYCLE_CORS_ORIGINS, or set LIFECYCLE_API_KEYS",
            status=403,
            code="cross_origin",
        )

    def _is_own_origin(self, origin: str, host: str) -> bool:
        """Return whether the origin is that of the call itself, or of an allowed host in front of this frontend."""
        try:
            parts = urlsplit(origin.lower())
            default_port = _DEFAULT_PORTS.get(parts.scheme, "")
            is_same = parts.netloc.removesuffix(default_port) == host.lower().removesuffix(default_port)
            return bool(parts.netloc) and (is_same or _name_of(parts.netloc) in self._hosts)
        except ValueError:
            return False

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        if name == "localhost" or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return address.is_loopback


def _name_of(host: str) -> str:
    """Return the name or address in a Host, without its port, in lower case; '' for one that is malformed."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        return host.lower()
    return name if port.isascii() and port.isdigit() else ""
