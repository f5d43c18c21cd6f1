"""Check and hold the address of an upstream, the credentials for it, and its HTTP client."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from lifecycle.aio.vanished_peer import notice_vanished_peer
from lifecycle.execution.engine import EngineLoadError

_CONNECT_TIMEOUT_SECS = 10.0
_KEEPALIVE_SECS = 2.0  # servers close idle connections after 5 s or more; reusing one later would race with that
VANISHED_AFTER_SECS = 30.0  # how long the host of an upstream may be away without a trace
_LEAST_SECRET_CHARS = 4
_USERINFO = re.compile(r"(?<=://)[^/\s]*@")
_CREDENTIALS = re.compile(r"//\S*@")


class Upstream:
    """Describe one OpenAI-compatible server: its URLs, the headers with the credentials, and what to hide of it."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """Use the server at `base_url`: `http://host:port/v1`, or `http://host:port`, to which `/v1` is added.

        A query in the URL is sent with each call, and credentials in it as basic authentication. White space around the
        key is left out. Raise EngineLoadError, with one line that shows no credentials, for a URL that is empty or
        not HTTP, for a key that no header can carry, and for proxies or certificates that cannot be used.
        """
        url, key = _checked_url(base_url.strip()), _checked_key(api_key.strip())
        path = url.path.rstrip("/") or "/v1"
        self._base = str(url.copy_with(userinfo=b"", path=path, query=None))
        self._query = f"?{url.query.decode()}" if url.query else ""
        self.headers: dict[str, str] = {}
        if url.userinfo:
            userinfo = f"{url.username}:{url.password}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(userinfo).decode()}"
        elif key:
            self.headers["Authorization"] = f"Bearer {key}"
        secrets = [key, url.password, quote(url.password, safe=""), f"{url.username}:{url.password}"]
        self._secrets = _any_of([text for text in secrets if len(text) >= _LEAST_SECRET_CHARS and text != ":"])
        self._addresses = _any_of(_addresses(url))
        make_client()  # settings that cannot be used stop the start, not the first request

    @property
    def address(self) -> str:
        """Return the URL for the log: without credentials, and without the query, which may hold some."""
        return self._base

    def url(self, path: str, *, at_root: bool = False) -> str:
        """Return the URL of an endpoint, such as "/chat/completions"; `at_root` is for one beside `/v1`."""
        return (self._base.removesuffix("/v1") if at_root else self._base) + path + self._query

    def scrub(self, text: str) -> str:
        """Return a message for clients without the upstream's address and credentials."""
        text = self.scrub_credentials(text)
        return self._addresses.sub("[upstream]", text) if self._addresses else text

    def scrub_credentials(self, text: str) -> str:
        """Return a message for the log without credentials."""
        text = _USERINFO.sub("", text)
        return self._secrets.sub("[redacted]", text) if self._secrets else text


def make_client() -> httpx2.AsyncClient:
    """Return an HTTP client with a connection pool of its own.

    Raise EngineLoadError when the environment's proxies or certificates cannot be used.
    """
    try:
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_SECS),
            # The worker's concurrency is the limit; a second limit here would queue requests unseen.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=_KEEPALIVE_SECS),
        )
    except Exception as failure:  # ValueError, ImportError, OSError or InvalidURL, by the setting
        reason = " ".join(_CREDENTIALS.sub("//", str(failure)).split()) or type(failure).__name__
        raise EngineLoadError(
            "the openai engine cannot use the environment's proxies or certificates; correct HTTP_PROXY, HTTPS_PROXY, "
            f"ALL_PROXY, NO_PROXY, SSL_CERT_FILE or SSL_CERT_DIR: {reason}"
        ) from None


async def keep_alive(step: str, details: Mapping[str, Any]) -> None:
    """Let a new connection to the upstream notice when its host vanishes.

    It is the `trace` function of a request, which the client calls with each step; see httpcore's request extensions.
    """
    if step.endswith("connect_tcp.complete"):
        connection = details["return_value"].get_extra_info("socket")
        if connection is not None:
            notice_vanished_peer(connection, VANISHED_AFTER_SECS)


def _checked_url(base_url: str) -> httpx2.URL:
    if not base_url:
        raise EngineLoadError("the openai engine has no upstream: pass --upstream URL or set LIFECYCLE_OPENAI_BASE_URL")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.fragment:
        shown = base_url.rpartition("@")[2]
        raise EngineLoadError(
            f"LIFECYCLE_OPENAI_BASE_URL={shown!r} is not an HTTP URL: use http://host:port/v1 or https://…"
        )
    return url


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise EngineLoadError(
            "LIFECYCLE_OPENAI_API_KEY holds characters that no HTTP header can carry, such as line breaks or "
            "typographic quotes; set the bare key"
        )
    return key


def _addresses(url: httpx2.URL) -> list[str]:
    """Return the forms in which a message may name the upstream. A bare name such as `vllm` is only one with a port."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    found = [f"{url.scheme}://{host}", f"//{host}"]
    if url.port:
        found += [f"{host}:{url.port}"]
    if "." in url.host or ":" in url.host or url.host == "localhost":
        found += [host, url.host]
    return [form + port for form in found for port in (f":{url.port}" if url.port else "", "")]


def _any_of(texts: list[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds each text where it is not a part of a longer word; None for no text."""
    longest_first = sorted(set(texts), key=len, reverse=True)
    if not longest_first:
        return None
    return re.compile(r"(?<![A-Za-z0-9])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![A-Za-z0-9])", re.I)
