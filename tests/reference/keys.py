"""Every key and channel in Redis, from lifecycle/store/keys.py."""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle.store.keys import CHANNELS, CONTROL_KEYS, SHARD_KEYS, Key
from tests.reference.table import code, table


def of_a_shard() -> str:
    return _table(SHARD_KEYS)


def control() -> str:
    return _table(CONTROL_KEYS)


def channels() -> str:
    rows = ((code(name), scope, _escaped(what)) for name, scope, what in CHANNELS)
    return table(("name", "heard by", "what is published"), rows)


def _table(keys: Iterable[Key]) -> str:
    return table(("name", "type", "what is in it", "what removes it"), map(_row, keys))


def _row(key: Key) -> tuple[str, ...]:
    """What a name ends with, like `request:`, begins `what`: `<rid>: the record`."""
    rest, what = key.what.split(": ", 1) if key.name.endswith(":") else ("", key.what)
    return code(key.name + rest), key.type, _escaped(what), _escaped(key.life)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "&#124;")
