"""Hold the data of one simulated Redis server: keys, values and times of expiry."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any, TypeVar

from tests.simulation.server.replies import WRONG_TYPE, CommandError
from tests.simulation.server.values import EMPTY, Value

Kind = TypeVar("Kind")


class Database:
    """Keys and their values. `now_ms` is the server's clock, which stands still while a script runs."""

    def __init__(self, randomness: random.Random) -> None:
        self.values: dict[bytes, Value] = {}
        self.expires_at_ms: dict[bytes, int] = {}
        self.now_ms = 0
        self.now_micros = 0
        self.randomness = randomness
        self.touched: dict[bytes, None] = {}  # keys that were written since somebody has emptied this
        self.writes = 0  # how many commands may have changed something
        self.publish: Callable[[str, bytes, bytes], int] = lambda kind, channel, message: 0

    def set_clock(self, secs: float) -> None:
        self.now_micros = int(secs * 1e6)
        self.now_ms = self.now_micros // 1000

    def find(self, key: bytes) -> Value | None:
        """Return the value of a key, or None when there is none or it has expired."""
        expires_at_ms = self.expires_at_ms.get(key)
        if expires_at_ms is not None and expires_at_ms <= self.now_ms:
            self.delete(key)
        return self.values.get(key)

    def typed(self, key: bytes, kind: type[Kind]) -> Kind | None:
        """Return the value if it is of this kind. Raises CommandError when it is of another."""
        value = self.find(key) if key in self.expires_at_ms else self.values.get(key)
        if value is not None and type(value) is not kind:
            raise CommandError(WRONG_TYPE)
        return value

    def made(self, key: bytes, kind: Callable[[], Kind]) -> Kind:
        """Return the value of this kind, a new one if there is none."""
        value: Any = self.typed(key, kind)  # type: ignore[arg-type]
        if value is None:
            value = self.values[key] = kind()  # type: ignore[assignment]
        return value  # type: ignore[no-any-return]

    def delete(self, key: bytes) -> bool:
        self.expires_at_ms.pop(key, None)
        return self.values.pop(key, None) is not None

    def drop_if_empty(self, key: bytes, value: Value) -> None:
        if isinstance(value, EMPTY) and not len(value):
            self.delete(key)

    def expire_all(self) -> None:
        """Delete every key whose time has come, as Redis does in the background."""
        for key in [key for key, at in self.expires_at_ms.items() if at <= self.now_ms]:
            self.delete(key)

    def dump(self) -> bytes:
        """Return everything that a replica has at this moment."""
        return pickle.dumps((self.values, self.expires_at_ms))

    def load(self, dumped: bytes) -> None:
        self.values, self.expires_at_ms = pickle.loads(dumped)

    def clear(self) -> None:
        self.values, self.expires_at_ms = {}, {}
