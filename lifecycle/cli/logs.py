"""Write a replica's log to standard error: readable lines on a terminal, otherwise JSON lines.

The mapping in `extra={"request": {...}}` becomes fields of the line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

import orjson

from lifecycle.cli.scrubbing import scrubber

_MESSAGE_CHARS = 120  # limit for one field of a readable line


class LogFormat(StrEnum):
    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


def configure(level: str, format: LogFormat) -> None:
    """Set up the root logger; call it once in a process."""
    human = format is LogFormat.HUMAN or (format is LogFormat.AUTO and sys.stderr.isatty())
    handler = _StandardError(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _StandardError(logging.StreamHandler[TextIO]):
    """Write to the current `sys.stderr`, which a caller in the same process may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def resolve(format: LogFormat, *, terminal: bool) -> LogFormat:
    """Replace AUTO by HUMAN or JSON, for a child whose output this process prints."""
    if format is not LogFormat.AUTO:
        return format
    return LogFormat.HUMAN if terminal else LogFormat.JSON


class _Formatter(logging.Formatter):
    """Know the secrets that no line may show, which are those of the process when the log is set up."""

    def __init__(self) -> None:
        super().__init__()
        self._scrub = scrubber()


class HumanFormatter(_Formatter):
    """Format lines like `12:00:00 INFO lifecycle.request: request ended demo-1 model=echo status=completed …`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{at} {record.levelname} {record.name}: {self._scrub(record.getMessage())}"
        request = _request(record)
        if request:
            fields = (f"{name}={_short(value)}" for name, value in request.items() if name != "id" and value != "")
            line = " ".join((line, str(request.get("id", "")), *fields))
        return line + (f"\n{self._scrub(self.formatException(record.exc_info))}" if record.exc_info else "")


class JsonFormatter(_Formatter):
    """Format one JSON object per line: time, level, logger, message, and the fields of a request's record."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._scrub(record.getMessage()),
        }
        request = dict(_request(record))
        if request:
            line |= {"request_id": request.pop("id", None), **request}
        if record.exc_info:
            line["exception"] = self._scrub(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def _short(value: object) -> str:
    """Return the value on one line, shortened, and quoted if it is not a single word."""
    text = str(value)
    text = text if len(text) <= _MESSAGE_CHARS else text[:_MESSAGE_CHARS] + "…"
    return text if text.isprintable() and " " not in text else repr(text)


def _request(record: logging.LogRecord) -> Mapping[str, Any]:
    found = getattr(record, "request", None)
    return found if isinstance(found, Mapping) else {}
