"""The load generator: sockets, epoll, and as little Python for each token as the figures allow.

    python -m benchmarks.generator < plan.json        a line when all are connected, a line with the outcome

Each connection sends its request, reads the response to its end, and sends the next. Events are counted, not parsed:
the numbers in the texts must go up one by one, a stream must end with `[DONE]`, no error frame may come. Of a read with
many tokens only the first and the last are looked at, and their number; their delays stand for the rest.
"""

from __future__ import annotations

import heapq
import re
import select
import socket
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field

import orjson

from benchmarks.caller import Address
from benchmarks.load import TAIL_SECS, Outcome, Plan, Spread

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_ERROR = b'data: {"error"'
_DONE = b"data: [DONE]"
_EVENT_END = b"\n\n"
_CHUNK_END = b"\n\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_READ_BYTES = 1 << 16
_FEW = 16  # tokens in one read, up to which each is looked at
_PROGRESS_NS = 50_000_000
_STARTS_WITHIN = 2 / 3  # of the lead
_KEPT_ERRORS = 5


class Connection:
    __slots__ = ("began_ns", "done", "last_ns", "number", "opened", "rest", "socket", "streams")

    def __init__(self, url: str) -> None:
        self.socket = socket.create_connection(Address.of(url))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.forget()

    def forget(self) -> None:
        """Ready for the next response."""
        self.rest = b""
        self.number = 0  # of the last token
        self.began_ns = self.last_ns = 0
        self.opened = self.streams = self.done = False


@dataclass(slots=True)
class Tally:
    """The tokens, responses and faults of all connections."""

    tokens: int = 0
    responses: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    delays_ns: array[int] = field(default_factory=lambda: array("q"))
    gaps_ns: array[int] = field(default_factory=lambda: array("q"))
    first_token_ns: array[int] = field(default_factory=lambda: array("q"))
    whole_ns: array[int] = field(default_factory=lambda: array("q"))

    def forget_times(self) -> None:
        for times in (self.delays_ns, self.gaps_ns, self.first_token_ns, self.whole_ns):
            del times[:]

    def fault(self, kind: str, words: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if len(self.errors) < _KEPT_ERRORS:
            self.errors.append(words)


class Generator:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._request = plan.request.encode("latin-1")
        self._content = b'"%b":"' % plan.text_field.encode()
        self._token = re.compile(self._content + rb"(\d+)@(\d+)")
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._tally = Tally()
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int]] = []  # when which connection sends its next request

    def connect(self) -> None:
        for number in range(self._plan.connections):
            connection = Connection(self._plan.urls[number % len(self._plan.urls)])
            self._connections[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, select.EPOLLIN)

    def run(self) -> Outcome:
        plan, tally, poll, connections = self._plan, self._tally, self._epoll.poll, self._connections
        began_ns = now_ns = time.monotonic_ns()
        spread_ns = int(plan.lead_secs * 1e9 * _STARTS_WITHIN)
        self._due = [(began_ns + spread_ns * n // len(connections), fd) for n, fd in enumerate(connections)]
        measures_ns = began_ns + int(plan.lead_secs * 1e9)
        ends_ns = measures_ns + int((plan.secs + TAIL_SECS) * 1e9)
        measures = False
        progress = [(began_ns, 0, 0)]
        while now_ns < ends_ns:
            while self._due and self._due[0][0] <= now_ns:
                self._begin(heapq.heappop(self._due)[1])
            wakes_ns = progress[-1][0] + _PROGRESS_NS
            if self._due:
                wakes_ns = min(wakes_ns, self._due[0][0])
            for fd, _ in poll(max(0.0, (wakes_ns - now_ns) / 1e9)):
                self._read(connections[fd])
            now_ns = time.monotonic_ns()
            if now_ns - progress[-1][0] >= _PROGRESS_NS:
                progress.append((now_ns, tally.tokens, tally.responses))
            if now_ns >= measures_ns and not measures:
                measures = True
                tally.forget_times()
        for connection in connections.values():
            connection.socket.close()
        return Outcome(
            Spread.of_ns(tally.delays_ns),
            Spread.of_ns(tally.gaps_ns),
            Spread.of_ns(tally.first_token_ns),
            Spread.of_ns(tally.whole_ns),
            tally.faults,
            tally.errors,
            progress,
        )

    def _begin(self, fd: int) -> None:
        connection = self._connections[fd]
        connection.began_ns = time.monotonic_ns()
        connection.socket.send(self._request)

    def _read(self, connection: Connection) -> None:
        try:
            data = bytes(self._buffer[: connection.socket.recv_into(self._buffer)])  # cheaper than a large recv
        except ConnectionError:
            data = b""
        now_ns = time.monotonic_ns()
        if not data:
            self._lose(connection, "lost connections", "the server closed a connection")
            return
        if connection.rest:
            data = connection.rest + data
        if not connection.opened and not self._open(connection, data):
            return
        if not connection.streams:
            self._take_whole(connection, data, now_ns)
            return
        ended = data.endswith(_LAST_CHUNK) and (len(data) == len(_LAST_CHUNK) or data[-7:-5] == b"\r\n")
        if ended or data.endswith(_CHUNK_END):
            connection.rest = b""
        else:
            whole = data.rfind(_EVENT_END) + len(_EVENT_END) if _EVENT_END in data else 0
            connection.rest = data[whole:]
            data = data[:whole]
        self._take(connection, data, now_ns)
        if ended:
            if not connection.done:
                self._tally.fault("streams without [DONE]", "a response ended without [DONE]")
            self._end(connection, now_ns)

    def _open(self, connection: Connection, data: bytes) -> bool:
        """Return whether the response's head is complete and has the status 200."""
        head, found, _ = data.partition(b"\r\n\r\n")
        if not found:
            connection.rest = data
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            self._lose(connection, "refused requests", data.decode(errors="replace"))
            return False
        connection.opened = True
        connection.streams = _LENGTH.search(head) is None
        return True

    def _take(self, connection: Connection, events: bytes, now_ns: int) -> None:
        """Count the complete events of a stream."""
        count = events.count(self._content)
        if count:
            tally = self._tally
            due = connection.number + 1
            if count == 1 and (token := self._token.search(events)) is not None and int(token[1]) == due:
                tally.delays_ns.append(now_ns - int(token[2]))
            else:
                self._take_some(events, due, count, now_ns)
            if due == 1:
                tally.first_token_ns.append(now_ns - connection.began_ns)
            else:
                tally.gaps_ns.append(now_ns - connection.last_ns)
            connection.last_ns = now_ns
            connection.number += count
            tally.tokens += count
        if _DONE in events:
            connection.done = True
        if _ERROR in events:
            said = events[events.index(_ERROR) :].split(b"\n", 1)[0]
            self._tally.fault("error frames", said.decode(errors="replace"))

    def _ends(self, events: bytes) -> list[tuple[bytes, bytes]]:
        """Return the first and the last token."""
        found = (self._token.search(events), self._token.search(events, events.rfind(self._content)))
        return [(match[1], match[2]) for match in found if match is not None]

    def _take_some(self, events: bytes, due: int, count: int, now_ns: int) -> None:
        if count <= _FEW:
            tokens, numbers = self._token.findall(events), [*range(due, due + count)]
        else:
            tokens, numbers = self._ends(events), [due, due + count - 1]
        if [int(number) for number, _ in tokens] != numbers:
            self._tally.fault("gaps", f"{count} tokens came where {due} was due: {tokens[:1]} to {tokens[-1:]}")
        self._tally.delays_ns.extend(now_ns - int(yielded_ns) for _, yielded_ns in tokens)

    def _take_whole(self, connection: Connection, data: bytes, now_ns: int) -> None:
        """A response that is no stream, as far as it has come."""
        head, _, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None
        connection.rest = data
        if len(body) >= int(length[1]):
            connection.number = body.count(b"@")
            self._tally.tokens += connection.number
            self._end(connection, now_ns)

    def _end(self, connection: Connection, now_ns: int) -> None:
        tally = self._tally
        tally.responses += 1
        tally.whole_ns.append(now_ns - connection.began_ns)
        if connection.number != self._plan.tokens:
            tally.fault("wrong lengths", f"{connection.number} tokens came where {self._plan.tokens} were due")
        connection.forget()
        due_ns = now_ns + int(self._plan.pause_secs * 1e9)
        heapq.heappush(self._due, (due_ns, connection.socket.fileno()))

    def _lose(self, connection: Connection, kind: str, words: str) -> None:
        self._tally.fault(kind, words)
        self._epoll.unregister(connection.socket)


def main() -> None:
    generator = Generator(Plan(**orjson.loads(sys.stdin.buffer.read())))
    generator.connect()
    print("{}", flush=True)
    sys.stdout.buffer.write(orjson.dumps(asdict(generator.run())) + b"\n")


if __name__ == "__main__":
    main()
