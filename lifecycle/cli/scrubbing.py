"""Keep the secrets of this process's URLs out of what it writes, whichever library words the message."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote

_SHOWN = "***"
_SHORTEST = 4  # a shorter part would be found in many other words
_USER_INFO = re.compile(r"(https?)?://(\S*)@")
# Of any URL, also of one that came from elsewhere. Where a URL of HTTP has no password, its user name is a key.
_CREDENTIALS = re.compile(r"[^\s/'\"@:]+:[^\s/'\"@]+@|(?<=http://)[^\s/'\"@]+@|(?<=https://)[^\s/'\"@]+@")
_OPTION = re.compile(
    r"([?&][\w.-]*(?:password|passwd|pwd|secret|token|key|signature|sig|auth|credentials?)=)([^\s&#'\"]+)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[/?#@:,\s]")
_WHOLE_SECRETS = ("LIFECYCLE_OPENAI_API_KEY", "LIFECYCLE_WEBHOOK_SECRET")
_HEADERS = re.compile(r"OTEL_EXPORTER_OTLP_\w*HEADERS")


def scrubber() -> Callable[[str], str]:
    """Return a function that takes secrets out of a text: credentials in URLs, and what this process was given.

    The environment and the arguments are read now, so whoever writes many texts keeps the function.
    """
    secrets = {part for secret in _secrets(os.environ.items(), sys.argv) for part in _forms(secret)}
    longest_first = sorted((part for part in secrets if len(part) >= _SHORTEST), key=len, reverse=True)
    given = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def scrub(text: str) -> str:
        if "@" in text:
            text = _CREDENTIALS.sub(_SHOWN + "@", text)
        if "=" in text:
            text = _OPTION.sub(rf"\1{_SHOWN}", text)
        return given.sub(_SHOWN, text) if given else text

    return scrub


def scrubbed(text: str) -> str:
    """Return one text without secrets."""
    return scrubber()(text)


def _secrets(environment: Iterable[tuple[str, str]], arguments: Iterable[str]) -> Iterator[str]:
    values = list(arguments)
    for name, value in environment:
        values.append(value)
        if name in _WHOLE_SECRETS:
            yield from value.split()
        if _HEADERS.fullmatch(name):
            for field in value.split(","):
                yield field.rpartition("=")[2]
    for value in values:
        for http, user_info in _USER_INFO.findall(value):
            user, _, password = user_info.partition(":")
            yield password or (user if http and "/" not in user else "")
        for _, secret in _OPTION.findall(value):
            yield secret


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret as it is and decoded, and its parts: a parser that misreads a URL names only one of them."""
    for form in {secret, unquote(secret)}:
        yield form
        yield from _PARTS.split(form)
