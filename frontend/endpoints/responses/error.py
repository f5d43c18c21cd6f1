"""Describe the failure of a response as the response object does."""

from __future__ import annotations

from lifecycle.encoding import encodable
from lifecycle.fastapi.errors import shown_detail
from lifecycle.types import ErrorDetail


def response_error(error_type: str, message: str | None, detail: ErrorDetail | None) -> dict[str, str]:
    """Return the field `error`. Its code is that of the engine or upstream if it is a string, else the error type."""
    shown = shown_detail(detail)
    code = shown.code if shown is not None and isinstance(shown.code, str) else str(error_type)
    return {"code": code, "message": encodable(message or "")}
