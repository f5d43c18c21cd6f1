"""The record of a request, from the hash that Redis has."""

from __future__ import annotations

import orjson

from lifecycle.types import ErrorDetail, RequestRecord, Status

_NOT_STORED = {"queue_position", "estimated_wait_secs"}
_COUNTS = ("attempt", "output_tokens", "output_events", "input_tokens", "stream_length", "orphan_events", "preemptions")


def test_every_field_of_the_hash_is_in_the_field_of_its_name() -> None:
    detail = ErrorDetail(418, "teapot", "short", "pot", 2.5)
    special = {
        "status": Status.FAILED,
        "usage": {"prompt_tokens": 3},
        "labels": {"team": "x"},
        "error_detail": detail,
        **{name: number for number, name in enumerate((*_COUNTS, "priority", "lost_start"), 2)},
    }
    times = [name for name in RequestRecord._fields if name.endswith("_at")]
    expected = (
        {name: f"the {name}" for name in RequestRecord._fields if name not in _NOT_STORED}
        | {name: float(number) for number, name in enumerate(times, 1000)}
        | special
    )
    raw = {name: value if isinstance(value, str) else _stored(value) for name, value in expected.items()}

    record = RequestRecord.from_hash(raw)

    assert {name: value for name, value in record._asdict().items() if name not in _NOT_STORED} == expected
    assert record.queue_position is record.estimated_wait_secs is None


def _stored(value: object) -> str:
    return orjson.dumps(list(value) if isinstance(value, ErrorDetail) else value).decode()
