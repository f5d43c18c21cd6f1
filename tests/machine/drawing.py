"""The values that histories are drawn from, and the sizes that they may reach."""

from __future__ import annotations

from hypothesis import strategies as st

from lifecycle.settings import load
from lifecycle.store.results import Failure
from lifecycle.types import Labels, Storage
from tests.machine.words import Call, Limits, Share

MODELS = ("a", "b")
TICK_SECS = 10
LEASE_SECS = 30  # half of it is no multiple of a tick: no step is near the edge of a grace
QUEUE_LIMIT = 3
QUEUE_BYTES = 1024  # three or four of the bodies
MAX_ATTEMPTS = 3
CHECK_SECS = TICK_SECS  # after which a parent is looked at again
MOST_REQUESTS = 8
MOST_INFLIGHT = 5
LONGEST_TICKS = 20

SETTINGS = load(
    {
        "lease_secs": LEASE_SECS,
        "heartbeat_secs": TICK_SECS,
        "queue_limit": QUEUE_LIMIT,
        "queue_bytes": QUEUE_BYTES,
        "max_attempts": MAX_ATTEMPTS,
        "queue_without_workers": True,  # which models nobody serves is drawn
    }
)
OUTCOMES = (
    ("completed", "", "stop"),
    ("completed", "", "length"),
    ("failed", "internal", ""),
    ("cancelled", "cancelled", ""),
)

frontends = st.sampled_from(("f0", "f1", "f2"))
workers = st.sampled_from(("w0", "w1"))
slots = frontends | workers
taken_slots = st.sampled_from((0, 1, 1, 2, 5))
resumable = st.sampled_from((True, True, True, False))
twice = st.sampled_from((1, 1, 2))
limits = st.sampled_from((0, 0, 0, 0, 2 * TICK_SECS, 4 * TICK_SECS))
calls = st.builds(
    Call,
    frontend=frontends,
    labels=st.builds(Labels, st.sampled_from(MODELS), st.just("completions"), st.sampled_from(("stream", "unary"))),
    on_disconnect=st.sampled_from(("cancel", "continue")),
    grace_secs=st.sampled_from((0, 2 * TICK_SECS)),
    limits=st.builds(Limits, limits, limits, limits),
    needs=st.sampled_from(((), (), (), ("tools",))),
    storage=st.sampled_from((Storage.NONE, Storage.NONE, Storage.KEPT, Storage.BACKGROUND, Storage.TRANSIENT)),
    share=st.builds(
        Share,
        owner=st.sampled_from(("", "x", "y")),
        priority=st.sampled_from((0, 0, 0, -1, 7)),
        weight=st.sampled_from((1, 1, 4)),
        max_tokens=st.sampled_from((None, 1, 10, 1000)),
    ),
)
accepts = st.sampled_from((("*",), ("*",), ("n", "tools"), ()))
failures = st.sampled_from((None, None, Failure("no"), Failure("no", uses_attempt=False)))
