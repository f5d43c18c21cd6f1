"""Write the Redis keys and channels, from lifecycle/store/keys.py."""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle.store.keys import CHANNELS, CONTROL_KEYS, SHARD_KEYS, Key
from tests.reference.table import code, table


def of_a_shard() -> str:
    """Return the keys of a shard."""
    return _table(SHARD_KEYS)


def control() -> str:
    """Return the control keys."""
    return _table(CONTROL_KEYS)


def channels() -> str:
    """Return the channels."""
    rows = ((code(name), scope, _escaped(what)) for name, scope, what in CHANNELS)
    return table(("name", "subscribers", "content"), rows)


def _table(keys: Iterable[Key]) -> str:
    return table(("name", "type", "content", "lifetime"), map(_row, keys))


def _row(key: Key) -> tuple[str, ...]:
    """Return one row. If the name ends with a colon, `what` begins with the rest of it: `<rid>: the record`."""
    rest, what = key.what.split(": ", 1) if key.name.endswith(":") else ("", key.what)
    return code(key.name + rest), key.type, _escaped(what), _escaped(key.life)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "&#124;")
