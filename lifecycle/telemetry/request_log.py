"""Log one line for each request that ended: how, where, and how long each part took.

Prompts and answers are never logged. An engine's own error message may quote a prompt, so it is left out too.
"""

from __future__ import annotations

import logging
from typing import Any

from lifecycle.types import ErrorType, Labels, RequestRecord

log = logging.getLogger("lifecycle.request")

_DURATIONS = ("queue_secs", "first_token_secs", "duration_secs", "cancel_to_stop_secs")


def ended(record: RequestRecord, trace_id: str = "") -> None:
    """Log a terminal record. Called by the frontend that owned the request."""
    if log.isEnabledFor(logging.INFO):
        log.info("request ended", extra={"request": fields(record, trace_id)})


def lost(rid: str, labels: Labels, error_type: ErrorType, trace_id: str = "") -> None:
    """Log a request that ended here without a terminal record: Redis lost it, or this replica is fenced."""
    known = {"id": rid, **labels._asdict(), "status": "failed", "error_type": error_type.value}
    log.info("request lost", extra={"request": known | ({"trace_id": trace_id} if trace_id else {})})


def fields(record: RequestRecord, trace_id: str = "") -> dict[str, Any]:
    """Return the fields of the log line, named as in the record. What has not happened or is unknown is left out."""
    found = {
        "id": record.id,
        "model": record.model,
        "endpoint": record.endpoint,
        "request_type": record.request_type,
        "status": record.status.value,
        "error_type": record.error_type,
        "error_message": record.error_message if record.error_type != ErrorType.INTERNAL else None,
        "finish_reason": record.finish_reason,
        "owner": record.owner,
        "cancelled_by": record.cancelled_by,
        "cancelled_via": record.cancelled_via,
        "cancel_mode": record.cancel_mode,
        "cancel_reason": record.cancel_reason,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        **{name: _rounded(getattr(record, name)) for name in _DURATIONS},
        "attempt": record.attempt,
        "frontend": record.frontend,
        "worker": record.worker,
        "trace_id": trace_id or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _rounded(secs: float | None) -> float | None:
    return None if secs is None else round(secs, 4)
