"""Clients that read nothing cost their frontend little memory, and lose nothing when they read on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from tests.cluster import Cluster, Process, running
from tests.conftest import MakeSettings
from tests.engines import bulky_token
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until

TOKEN_BYTES = 50_000
GROWTH_BYTES = 8_000_000


@asynccontextmanager
async def _warm_cluster(make_settings: MakeSettings, directory: Path) -> AsyncIterator[tuple[Cluster, Process]]:
    """Yield a cluster whose frontend has served such events before."""
    settings = make_settings(lease_secs=8.0, heartbeat_secs=0.5)
    async with running(settings, directory, workers=0) as cluster:
        (frontend,) = cluster.frontends
        await cluster.worker("bulky", "tests.engines:bulky")
        for _ in range(3):
            answer = await cluster.http.post(
                frontend.url + "/v1/chat/completions", json=chat(f"20 {TOKEN_BYTES}", "bulky")
            )
            assert answer.text.endswith("data: [DONE]\n\n")
        yield cluster, frontend


def _memory(process: Process) -> tuple[int, int]:
    """Return the resident memory of a process, and the most since `_forget_peak`, in bytes."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
    )
    resident, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return resident, peak


def _forget_peak(process: Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


class DeafClient:
    """A client that sends a call, and reads the answer only when it is told to."""

    def __init__(self, frontend: Process, method: str, path: str, rid: str = "", body: object = None) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = frontend.url.removeprefix("http://").partition(":")
        self._socket.connect((host, int(port)))
        content = b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
        lines += [f"X-Request-Id: {rid}", "X-On-Disconnect: continue"] if rid else []
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        self._socket.setblocking(False)

    async def read(self) -> list[tuple[str, str]]:
        """Return the id and the text of each event, up to [DONE]."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # from now on it is to be fast
        reader, writer = await asyncio.open_connection(sock=self._socket)
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = bytearray()
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size + 2)
                del body[-2:]
        finally:
            writer.close()
            await writer.wait_closed()
        *events, done, rest = body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [_id_and_text(event) for event in events if not event.startswith(":")]

    async def has_answer(self) -> bool:
        """Return whether the answer has begun."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()


def _id_and_text(event: str) -> tuple[str, str]:
    fields = dict(line.split(": ", 1) for line in event.split("\n"))
    delta = json.loads(fields["data"])["choices"][0]["delta"]
    return fields.get("id", ""), delta.get("content", "")


async def _completed(cluster: Cluster, rid: str) -> bool:
    answer = await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{rid}")
    return answer.status_code == 200 and answer.json()["status"] == "completed"


def _expected(count: int) -> list[tuple[str, str]]:
    """Return the ids and texts of all events; the last has the finish reason."""
    return [(f"1-{number + 1}", bulky_token(number, TOKEN_BYTES)) for number in range(count)] + [("", "")]


async def test_a_client_that_reads_nothing_costs_little_and_loses_nothing(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    count = 400  # 20 MB
    async with _warm_cluster(make_settings, tmp_path) as (cluster, frontend):
        before, _ = _memory(frontend)
        _forget_peak(frontend)
        body = chat(f"{count} {TOKEN_BYTES}", "bulky")
        client = DeafClient(frontend, "POST", "/v1/chat/completions", "deaf", body)
        try:
            await wait_until(lambda: _completed(cluster, "deaf"), timeout=30)
            assert _memory(frontend)[1] - before < GROWTH_BYTES
            assert await client.read() == _expected(count)
            assert _memory(frontend)[1] - before < GROWTH_BYTES, "while it was read"
        finally:
            client.close()


async def test_clients_of_one_request_that_read_nothing_share_what_is_held(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Hold a megabyte for each of many readers, and find that it is the same megabyte."""
    count, gate = 60, tmp_path / "gate"
    async with _warm_cluster(make_settings, tmp_path) as (cluster, frontend):
        before, _ = _memory(frontend)
        _forget_peak(frontend)
        body = chat(f"{count} {TOKEN_BYTES} {gate}", "bulky")
        clients = [DeafClient(frontend, "POST", "/v1/chat/completions", "deaf", body)]
        try:
            await wait_until(clients[0].has_answer)
            clients += [DeafClient(frontend, "GET", "/v1/requests/deaf/stream") for _ in range(20)]
            for client in clients:
                await wait_until(client.has_answer)
            gate.touch()
            await wait_until(lambda: _completed(cluster, "deaf"), timeout=30)
            assert _memory(frontend)[1] - before < GROWTH_BYTES
            for client in clients:
                assert await client.read() == _expected(count)
        finally:
            for client in clients:
                client.close()


async def test_a_single_event_of_megabytes_arrives_in_both_forms(make_settings: MakeSettings, tmp_path: Path) -> None:
    size = 3_000_000
    async with running(make_settings(lease_secs=8.0), tmp_path, workers=0) as cluster:
        (frontend,) = cluster.frontends
        await cluster.worker("bulky", "tests.engines:bulky")
        body = chat(f"3 {size}", "bulky")
        async with post(cluster.http, frontend.url, body) as stream:
            await stream.read()
        assert error_of(stream.events) is None
        text = "".join(bulky_token(number, size) for number in range(3))
        assert text_of(stream.events) == text
        answer = await cluster.http.post(frontend.url + "/v1/chat/completions", json=body | {"stream": False})
        assert answer.json()["choices"][0]["message"]["content"] == text
