"""Webhooks over TLS: the certificate must be that of the host's name, although the connection goes to an address."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lifecycle.webhooks.sender import Sent, WebhookSender
from lifecycle.webhooks.signature import Signer
from tests.receiver import SECRET


def certify(directory: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for this name that is its own authority, and its key."""
    certificate, key = directory / "receiver.crt", directory / "receiver.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", f"subjectAltName=DNS:{name}"], check=True, capture_output=True, timeout=30)
    return certificate, key


@asynccontextmanager
async def serving(certificate: Path, key: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """Answer every call with 200. Yield the port and the names that clients asked for (SNI)."""
    context, names = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), list[str]()
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: names.append(str(name))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], names
    finally:
        server.close()
        await server.wait_closed()


async def send(port: int) -> Sent:
    sender = WebhookSender(Signer.parse(SECRET), allow_private=True, timeout_secs=5.0)
    try:
        return await sender.send(f"https://localhost:{port}/", "evt_1", b"{}")
    finally:
        await sender.aclose()


@pytest.mark.parametrize(("name", "accepted"), [("localhost", True), ("other.example", False)])
async def test_the_certificate_must_be_that_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, accepted: bool
) -> None:
    certificate, key = certify(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(certificate, key) as (port, names):
        sent = await send(port)
    assert names[0] == "localhost"
    if accepted:
        assert sent == Sent()
    else:
        assert "certificate" in sent.reason.lower()


async def test_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    async with serving(*certify(tmp_path, "localhost")) as (port, _):
        assert "certificate" in (await send(port)).reason.lower()
