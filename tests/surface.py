"""Describe the public surface of the library: each name, with its signature. `python -m tests.surface` writes it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import lifecycle
import lifecycle.fastapi
import lifecycle.testing
from lifecycle.types import _RECORD_FIELDS, RequestRecord

_MADE_BY_THE_LIBRARY = (lifecycle.Run, lifecycle.Resumed, lifecycle.Tracker)  # and not by calling their class
_ANNOTATION = re.compile(r"(: |-> )'([^']*)'")  # a text, as the modules have postponed annotations
FILE = Path(__file__).parent / "unit" / "public_surface.txt"


def text() -> str:
    """Return one line for each public name and each public member of a class."""
    return "\n".join(line for name in lifecycle.__all__ for line in lines(name, getattr(lifecycle, name))) + "\n"


def docstrings() -> Iterator[tuple[str, bool]]:
    """Yield each public name and member, and whether it has a docstring."""
    for name, value in _all():
        if callable(value) or isinstance(value, (property, classmethod, ModuleType)):
            yield name, bool(inspect.getdoc(value))


def _all() -> Iterator[tuple[str, Any]]:
    for name in lifecycle.__all__:
        value = getattr(lifecycle, name)
        yield name, value
        if isinstance(value, ModuleType):
            yield from ((f"{name}.{member}", getattr(value, member)) for member in value.__all__)
        elif inspect.isclass(value):
            yield from ((f"{name}.{member}", found) for member, found in members(value))


def lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        for member in value.__all__:
            yield from lines(f"{name}.{member}", getattr(value, member))
    elif inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})" if bases else f"class {name}"
        if issubclass(value, Enum):
            yield from (f"  {name}.{member.name} = {member.value!r}" for member in value)
            return
        fields = _RECORD_FIELDS if value is RequestRecord else [f.name for f in _fields(value)]
        if fields:
            yield f"  {name} fields: {', '.join(fields)}"
        for member, found in members(value):
            yield f"  {name}.{member}{_signature(found)}"
    else:
        yield f"{name}{_signature(value)}"


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


def members(kind: type) -> list[tuple[str, Any]]:
    """Return the public members that the library's own classes define, and the constructor of one that has any."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("lifecycle"):
            found |= vars(base)
    slots = {name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}
    fields = {*getattr(kind, "_fields", ()), *(f.name for f in _fields(kind)), *slots}
    return [
        (name, value)
        for name, value in sorted(found.items())
        if (not name.startswith("_") or (name == "__init__" and not fields and kind not in _MADE_BY_THE_LIBRARY))
        and name not in fields
        if callable(value) or isinstance(value, (property, classmethod, staticmethod))
    ]


def _signature(value: Any) -> str:
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, property):
        return f" -> {inspect.signature(value.fget).return_annotation}" if value.fget else ""
    try:
        return _ANNOTATION.sub(r"\1\2", str(inspect.signature(value)))
    except (TypeError, ValueError):
        return f": {type(value).__name__}"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
