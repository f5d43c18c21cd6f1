"""A frontend counts the tokens that its inbox brings by their numbers, however they were divided into messages."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.telemetry.metrics import Metrics
from lifecycle.telemetry.tracing import RequestSpan
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tracking.monitor import MonitorServices, StreamMonitor
from lifecycle.types import ErrorType, Limits
from tests.unit.world import LABELS, World


def _counted(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("lifecycle_output_tokens_total", {"model": LABELS.model})


def _gaps(metrics: Metrics) -> float:
    name = "lifecycle_inter_token_latency_seconds_count"
    return metrics.registry.get_sample_value(name, {"model": LABELS.model}) or 0.0


def _monitor(world: World, metrics: Metrics, feed: RequestFeed) -> StreamMonitor:
    feed.pin()
    services = MonitorServices(world.store, metrics, RateLimiter(), _nothing_falls_due, lambda _: feed.unpin())
    monitor = StreamMonitor(services, feed, LABELS, Limits(), RequestSpan(feed.rid, LABELS))
    monitor.begin(queued=False)
    return monitor


def _nothing_falls_due(work: Coroutine[Any, Any, None], name: str) -> None:
    raise AssertionError(name)


async def test_between_n_tokens_there_are_n_less_one_waits(world: World) -> None:
    metrics, feed = Metrics(), RequestFeed("r", lambda feed: None)
    monitor = _monitor(world, metrics, feed)
    feed.take_tokens("1-3", ["a", "b", "c"])
    assert (_counted(metrics), _gaps(metrics)) == (3, 2)
    feed.take_tokens("1-4", ["d"])
    assert (_counted(metrics), _gaps(metrics)) == (4, 3)
    feed.take_tokens("1-4", ["d"])
    feed.take_tokens("1-6", ["d", "e", "f"])
    assert (_counted(metrics), _gaps(metrics)) == (6, 5), "frames that overlap"
    feed.take_tokens("1-9", ["i"])
    assert (_counted(metrics), _gaps(metrics)) == (9, 8), "a frame that got lost"
    monitor.leave()


async def test_tokens_whose_frames_got_lost_are_counted_with_the_end_and_once(world: World) -> None:
    await world.run()
    for number in range(1, 6):
        await world.append(number)
    await world.finish(5)
    metrics, feed = Metrics(), RequestFeed("r", lambda feed: None)
    monitor = _monitor(world, metrics, feed)
    feed.take_tokens("1-3", ["a", "b", "c"])
    await monitor.recheck()
    feed.take_tokens("1-5", ["d", "e"])
    assert _counted(metrics) == 5


@pytest.mark.leaves_inflight
async def test_a_move_of_which_no_message_came_ends_the_watch_for_inactivity(world: World) -> None:
    """A request that waits again may do so for longer than a worker may be silent."""
    await world.run(resumable=True)
    await world.append(1)
    metrics, feed = Metrics(), RequestFeed("r", lambda feed: None)
    monitor = _monitor(world, metrics, feed)
    feed.take_tokens("1-1", ["a"])
    await world.store.requeue("r", "w0", 1)
    await monitor.recheck()
    queued = metrics.registry.get_sample_value("lifecycle_queued_requests", {"model": LABELS.model})
    assert (feed.started, queued) == (False, 1)
    monitor.leave()


async def test_only_tokens_of_an_attempt_tell_of_a_start_of_which_no_message_came(world: World) -> None:
    """The first events of an answer may come with the admission, and the request waits nevertheless."""
    metrics, feed = Metrics(), RequestFeed("r", lambda feed: None)
    monitor = _monitor(world, metrics, feed)
    feed.take_requeued()
    found = []
    for entry_id in ("0-1", "1-2"):
        feed.take_tokens(entry_id, ["a"])
        queued = metrics.registry.get_sample_value("lifecycle_queued_requests", {"model": LABELS.model})
        found.append((feed.started, queued))
    assert found == [(False, 1), (True, 0)]
    monitor.leave()


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(
    ("end", "lines"),
    [
        ("ended", [("request ended", "completed", "")]),
        ("lost", [("request lost", "failed", "state_lost")]),
        ("left", []),
        ("left, then lost", []),
    ],
)
async def test_a_request_has_one_line_in_the_log_unless_it_goes_on_elsewhere(
    world: World, caplog: pytest.LogCaptureFixture, end: str, lines: list[tuple[str, str, str]]
) -> None:
    caplog.set_level(logging.INFO, "lifecycle.request")
    await world.run()
    monitor = _monitor(world, Metrics(), RequestFeed("r", lambda feed: None))
    if end == "ended":
        await world.finish(0)
        await monitor.recheck()
    if "left" in end:
        monitor.leave()
    if "lost" in end:
        monitor.lose(ErrorType.STATE_LOST, "Redis lost the request")
        monitor.lose(ErrorType.STATE_LOST, "Redis lost the request")
    found = [(r.message, r.request) for r in caplog.records if r.name == "lifecycle.request"]  # type: ignore[attr-defined]
    assert [(message, fields["status"], fields["error_type"]) for message, fields in found] == lines
    assert all(fields["id"] == "r" for _, fields in found)
