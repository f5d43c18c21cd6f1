"""Write the settings, in the groups of lifecycle/settings.py."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Any, Literal

from pydantic.fields import FieldInfo

from lifecycle.settings import Settings, environment_name
from tests.reference.table import code, table

_GROUP = re.compile(r"^    # (.+)$|^    (\w+): ", re.MULTILINE)


def text() -> str:
    """Return a table for each group."""
    return "\n\n".join(
        f"### {title[0].upper()}{title[1:]}\n\n" + table(("setting", "default", "values", "meaning"), map(_row, names))
        for title, names in _groups().items()
    )


def _groups() -> dict[str, list[str]]:
    """Return the names of the settings by the comment above their group."""
    groups: dict[str, list[str]] = {}
    names: list[str] = []
    for comment, name in _GROUP.findall(inspect.getsource(Settings)):
        if comment:
            names = groups.setdefault(comment, [])
        elif name in Settings.model_fields:
            names.append(name)
    return groups


def _row(name: str) -> tuple[str, ...]:
    field = Settings.model_fields[name]
    return code(environment_name(name)), _default(field), _values(name, field), field.description or ""


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return str(field.get_default(call_default_factory=True, validated_data={}))
    value = field.default
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, Enum):
        return code(str(value.value))
    if isinstance(value, (int, float)):
        return f"{value:,.10g}"
    return code(value) if value else ""


def _values(name: str, field: FieldInfo) -> str:
    kind: Any = field.annotation
    if kind is bool:
        return "`true`, `false`"
    if kind == int | Literal["auto"]:
        return "whole, from 1 to 100,000; `auto`"
    if issubclass(kind, Enum):
        return ", ".join(code(str(member.value)) for member in kind)
    bounds = {
        sign: getattr(part, key)
        for part in field.metadata
        for key, sign in (("gt", "above"), ("ge", "from"), ("le", "to"))
        if hasattr(part, key)
    }
    unit = {"secs": "seconds", "bytes": "bytes", "sec": "tokens per second"}.get(name.rpartition("_")[2], "")
    if kind in (int, float):
        ends = [f"{sign} {value:,.10g}" for sign, value in bounds.items()]
        return ", ".join([*filter(None, [unit, "whole" if kind is int else ""]), *ends])
    patterns = [part.pattern for part in field.metadata if hasattr(part, "pattern")]
    choices = re.fullmatch(r"\^\(([a-z|]+)\)\$", patterns[0]) if patterns else None
    if choices:
        return ", ".join(map(code, choices[1].split("|")))
    return code(patterns[0].strip("^$")) if patterns else "text"
