"""Errors inside become the public ones, whatever raised them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lifecycle
from lifecycle.errors import ConfigurationConflict, Fenced, StateLost, StoreUnavailable
from lifecycle.tracking import admission
from lifecycle.tracking.admission import Rejected
from lifecycle.tracking.public_errors import public_errors

REASONS = set(re.findall(r"`([a-z_]+)`", Rejected.__doc__ or "")) - {"reason", "other_body"}  # submit has no such key


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_to_refuse_has_an_error(reason: str) -> None:
    with pytest.raises((lifecycle.Conflict, lifecycle.Overloaded, lifecycle.Unavailable)), public_errors("r"):
        raise Rejected(reason)


def test_an_engines_error_has_what_it_was_made_with() -> None:
    error = lifecycle.EngineError("too long", 413, "too_large", "length", "prompt", 2.5)
    made = (error.message, error.status, error.type, error.code, error.param, error.retry_after_secs)
    assert made == ("too long", 413, "too_large", "length", "prompt", 2.5)


def test_the_reasons_are_all_there() -> None:
    known = {"exists", "full", "full_model", "full_bytes", "queue_limit", "limit", "hopeless", "draining", "contended"}
    assert known == REASONS, Path(admission.__file__)


@pytest.mark.parametrize(
    ("failure", "public"),
    [
        (StoreUnavailable("Redis cannot be reached", "at 10.0.0.1"), lifecycle.Unavailable),
        (StateLost("lost"), lifecycle.Unavailable),
        (Fenced("the lease has expired"), lifecycle.Unavailable),
        (ConfigurationConflict("LIFECYCLE_SHARDS differs"), lifecycle.InvalidSetting),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [Fenced("expired")])]), lifecycle.Unavailable),
        (lifecycle.NotFound("unknown"), lifecycle.NotFound),
        (ExceptionGroup("tasks", [KeyError("mine")]), ExceptionGroup),
        (KeyError("mine"), KeyError),
    ],
)
def test_internal_errors_are_translated(failure: Exception, public: type[Exception]) -> None:
    with pytest.raises(public) as raised, public_errors():
        raise failure
    assert type(raised.value) is public
    assert "10.0.0.1" not in str(raised.value)
