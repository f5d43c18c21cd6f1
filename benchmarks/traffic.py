"""Workloads that are a load: what it costs and how fast it goes, measured while it is under way."""

from __future__ import annotations

import asyncio

from benchmarks.account import GENERATOR, Accountant, Bill
from benchmarks.caller import encode
from benchmarks.engines import STEP_SECS
from benchmarks.load import Outcome, Plan, generate
from benchmarks.measurement import Effort, Measurement
from benchmarks.profile import profiled
from benchmarks.stream import MODEL, Stream, completion
from benchmarks.system import System
from lifecycle.ids import new_request_id

_TOKENS = 200
_TOKENS_PER_SEC = 20
_PAUSE_SECS = 0.005
_RESUMED_TOKENS = 4_000
_LONG_TOKENS = 50_000
_READ_PER_SEC = 500
_FOREVER = 1_000_000
_STARTS_PER_SEC = 500  # many connections get a longer lead
_MIB = 1 << 20


async def unpaced(system: System, effort: Effort, streams: int) -> Measurement:
    """Engines that yield as fast as they go; a stream that has ended is followed by the next."""
    found, outcome, bill = await _measured(system, effort, completion(f"unpaced {_TOKENS}"), streams, _TOKENS)
    found.figures |= outcome.first_token.figures("first_token")
    return _with_tokens(found, outcome, bill)


async def long(system: System, effort: Effort, *, text_field: str, prompt: str) -> Measurement:
    """One unpaced stream of 50,000 events after the other: what an event costs by itself."""
    request = completion(f"{prompt} {_LONG_TOKENS}")
    found, outcome, bill = await _measured(system, effort, request, 1, _LONG_TOKENS, text_field=text_field)
    return _with_tokens(found, outcome, bill)


async def paced(system: System, effort: Effort, streams: int) -> Measurement:
    """Streams at a reader's pace, each with a phase of its own."""
    request = completion(f"paced {_FOREVER} {_TOKENS_PER_SEC}")
    found, outcome, bill = await _measured(system, effort, request, streams)
    return _with_pace(_with_tokens(found, outcome, bill), streams * _TOKENS_PER_SEC)


async def steps(system: System, effort: Effort, streams: int) -> Measurement:
    """An engine as real ones are: one step yields a token to each of its requests, every 20 ms."""
    found, outcome, bill = await _measured(system, effort, completion(f"steps {_FOREVER}"), streams)
    return _with_pace(_with_tokens(found, outcome, bill), streams / STEP_SECS)


async def unary(system: System, effort: Effort, callers: int) -> Measurement:
    """Whole answers of 200 tokens, engines unpaced."""
    request = completion(f"unpaced {_TOKENS}", stream=False)
    found, outcome, bill = await _measured(system, effort, request, callers, _TOKENS)
    return _with_requests(found, outcome, bill)


async def short(system: System, effort: Effort, callers: int) -> Measurement:
    """Streams of one token, one after the other on kept connections: what a request costs."""
    found, outcome, bill = await _measured(system, effort, completion("unpaced 1"), callers, 1)
    return _with_requests(found, outcome, bill)


async def one_token(system: System, effort: Effort, callers: int) -> Measurement:
    """Whole answers of one token: what a forward is compared with."""
    found, outcome, bill = await _measured(system, effort, completion("unpaced 1", stream=False), callers, 1)
    return _with_requests(found, outcome, bill)


async def forward(system: System, effort: Effort, callers: int, *, encoding: str) -> Measurement:
    """Embeddings of 1,024 numbers: what a forward costs."""
    request = encode("POST", "/v1/embeddings", {"model": MODEL, "input": "a text", "encoding_format": encoding})
    found, outcome, bill = await _measured(system, effort, request, callers, 1)
    return _with_requests(found, outcome, bill)


async def first_token(system: System, effort: Effort) -> Measurement:
    """Streams of one token on one kept connection, with pauses: nothing else is going on."""
    found, outcome, _ = await _measured(system, effort, completion("unpaced 1"), 1, 1, _PAUSE_SECS)
    found.figures |= outcome.first_token.figures("first_token") | outcome.whole.figures("whole")
    return found


async def resume(system: System, effort: Effort) -> Measurement:
    """A finished stream of 4,000 tokens, read from its beginning over and over again by one client."""
    rid = await _leave_to_itself(system, f"unpaced {_RESUMED_TOKENS}", wait=True)
    request = encode("GET", f"/v1/requests/{rid}/stream")
    found, outcome, bill = await _measured(system, effort, request, 1, _RESUMED_TOKENS)
    tokens, _ = outcome.between(bill.begins_ns, bill.ends_ns)
    found.figures |= outcome.whole.figures("whole") | {"tokens_per_sec": tokens / bill.secs}
    found.figures |= bill.per("token", tokens) | bill.cores()
    return found


async def readers(system: System, effort: Effort, count: int) -> Measurement:
    """Measure `count` readers on one stream of 500 tokens/s, from its beginning."""
    rid = await _leave_to_itself(system, f"paced {_FOREVER} {_READ_PER_SEC}")
    request = encode("GET", f"/v1/requests/{rid}/stream")
    found, outcome, bill = await _measured(system, effort, request, count)
    return _with_pace(_with_tokens(found, outcome, bill), count * _READ_PER_SEC)


async def _leave_to_itself(system: System, prompt: str, wait: bool = False) -> str:
    """The id of a request whose own client has gone, before its end or (`wait`) behind it."""
    rid = new_request_id("chatcmpl-")
    stream = await Stream.open(system.urls[0], completion(prompt, x_request_id=rid, x_on_disconnect="continue"))
    stream.begin()
    await (stream.ended if wait else stream.first)
    stream.close()
    return rid


async def _measured(
    system: System,
    effort: Effort,
    request: bytes,
    connections: int,
    tokens: int = 0,
    pause_secs: float = 0.0,
    text_field: str = "content",
) -> tuple[Measurement, Outcome, Bill]:
    lead_secs = effort.lead_secs + connections / _STARTS_PER_SEC
    plan = Plan(
        system.urls, request.decode("latin-1"), connections, lead_secs, effort.secs, tokens, pause_secs, text_field
    )
    async with generate(plan) as load:
        accountant = Accountant({**system.pids, GENERATOR: [load.pid]}, system.redis_url)
        await asyncio.sleep(lead_secs)
        before = accountant.now()
        async with profiled(system, effort, effort.secs):
            await asyncio.sleep(effort.secs)
        bill, sizes = Bill.between(before, accountant.now()), accountant.resident_bytes()
        accountant.close()
        outcome = await load.outcome()
    found = Measurement(
        faults=[*(f"{number} {kind}" for kind, number in outcome.faults.items()), *outcome.errors],
        details={"bill": bill, "resident_bytes": sizes, "outcome": outcome},
    )
    return found, outcome, bill


def _with_tokens(found: Measurement, outcome: Outcome, bill: Bill) -> Measurement:
    tokens, _ = outcome.between(bill.begins_ns, bill.ends_ns)
    found.figures |= {"tokens_per_sec": tokens / bill.secs}
    found.figures |= outcome.delay.figures("yield_to_socket") | outcome.gap.figures("inter_token")
    found.figures |= bill.per("token", tokens) | bill.cores()
    found.figures |= {f"{part}_mib": size / _MIB for part, size in found.details["resident_bytes"].items()}
    return found


def _with_pace(found: Measurement, due_per_sec: float) -> Measurement:
    """A system that falls behind is no failure, but its latencies only say how long it has been falling."""
    found.figures = {"delivered_of_due": found.figures["tokens_per_sec"] / due_per_sec} | found.figures
    return found


def _with_requests(found: Measurement, outcome: Outcome, bill: Bill) -> Measurement:
    _, requests = outcome.between(bill.begins_ns, bill.ends_ns)
    found.figures |= {"requests_per_sec": requests / bill.secs}
    found.figures |= outcome.first_token.figures("first_token") if outcome.first_token.max_ms else {}
    found.figures |= outcome.whole.figures("whole") | bill.per("request", requests) | bill.cores()
    return found
