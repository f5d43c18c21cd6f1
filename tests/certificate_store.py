"""The certificates that HTTP clients of the tests trust, read once in each process.

Every client reads them anew when it is made, which takes 20 ms of CPU time; a test makes one or more, and hardly any of
them uses TLS.
"""

from __future__ import annotations

import functools
import os
import ssl

import httpcore2

_read = httpcore2.default_ssl_context


def share() -> None:
    """Let all clients of this process have one context for as long as the environment names the same certificates."""
    httpcore2.default_ssl_context = _shared


def _shared(*, _trust_env: bool = True) -> ssl.SSLContext:
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")) if _trust_env else (None, None)
    return _context(_trust_env, *named)


@functools.cache
def _context(trust_env: bool, cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    return _read(_trust_env=trust_env)
