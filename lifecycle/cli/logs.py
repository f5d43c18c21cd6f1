"""The log of a replica, on standard error: lines for people on a terminal, JSON lines for everything else.

What a record carries as `extra={"request": {...}}` becomes fields of its line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

import orjson

_MESSAGE_CHARS = 120  # of what an engine or a client says, on a human's line


class LogFormat(StrEnum):
    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


def configure(level: str, format: LogFormat) -> None:
    """Sets up the root logger, once a process."""
    human = format is LogFormat.HUMAN or (format is LogFormat.AUTO and sys.stderr.isatty())
    handler = _StandardError(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _StandardError(logging.StreamHandler[TextIO]):
    """Whatever standard error is at the moment: who runs a command in their own process may have replaced it since."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def resolve(format: LogFormat, *, terminal: bool) -> LogFormat:
    """What AUTO means for a child whose output ends up on our own, perhaps a terminal."""
    if format is not LogFormat.AUTO:
        return format
    return LogFormat.HUMAN if terminal else LogFormat.JSON


class HumanFormatter(logging.Formatter):
    """`12:00:00 INFO lifecycle.request: request ended demo-1 model=echo status=completed …`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{at} {record.levelname} {record.name}: {record.getMessage()}"
        request = _request(record)
        if request:
            fields = (f"{name}={_short(value)}" for name, value in request.items() if name != "id" and value != "")
            line = " ".join((line, str(request.get("id", "")), *fields))
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and a request's record under its own names."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = dict(_request(record))
        if request:
            line |= {"request_id": request.pop("id", None), **request}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _short(value: object) -> str:
    """On one line, and readable as one word."""
    text = str(value)
    text = text if len(text) <= _MESSAGE_CHARS else text[:_MESSAGE_CHARS] + "…"
    return text if text.isprintable() and " " not in text else repr(text)


def _request(record: logging.LogRecord) -> Mapping[str, Any]:
    found = getattr(record, "request", None)
    return found if isinstance(found, Mapping) else {}
