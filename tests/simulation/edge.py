"""Serve calls at a frontend, between HTTP and its tracker: as frontend/routes does it, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from lifecycle.errors import ERROR_RESPONSES, Fenced, StoreError
from lifecycle.formats.token_estimate import TokenEstimate
from lifecycle.ids import START, TokenId
from lifecycle.queries import cluster
from lifecycle.store.new_request import AdmissionRequest, QueuePlace
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.reader import SILENCE, TokenReader
from lifecycle.tracking.admission import AdmittedRequest, Rejected
from lifecycle.tracking.connection import ConnectionStatus
from lifecycle.tracking.idempotency import Idempotency
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import CancelMode, ErrorType, Labels, Limits, OnDisconnect, Status
from tests.chaos.audit.history import How, Token
from tests.simulation.answer import Answer, UntilLeft
from tests.simulation.plan import Request

ENDPOINT = "chat_completions"
_CODES = {
    "exists": 409,
    "other_body": 422,
    "limit": 429,
    "no_parent": 404,
    "parent_ended": 409,
    "too_many_children": 429,
}
Handler = Callable[[Tracker, Answer], Awaitable[None]]


async def serve(handler: Handler, tracker: Tracker, answer: Answer) -> None:
    """Let a handler answer a call; a failure becomes the status that the HTTP server gives it."""
    try:
        await handler(tracker, answer)
    except Rejected as rejected:
        answer.begin(_CODES.get(rejected.reason, 503), rejected.reason)
    except (StoreError, Fenced) as failure:
        answer.begin(503, f"{type(failure).__name__}")
    except asyncio.CancelledError:
        answer.end(How.BROKEN)
        raise
    except Exception as failure:
        answer.begin(500, f"{failure!r}")
    answer.end()


def admit(request: Request) -> Handler:
    """Return the handler of the call that starts this request, or attaches to it by its idempotency key."""

    async def handle(tracker: Tracker, answer: Answer) -> None:
        state = await tracker.model_state(request.model)
        if state == "unknown":
            answer.begin(404, "model_not_found")
            return
        if state == "known" or await tracker.find_outage(request.model) is not None:
            answer.begin(503, "no_worker")
            return
        admitted = await _admit(tracker, request)
        answer.attached = admitted.attached
        await (_stream if request.stream else _unary)(admitted, answer)

    return handle


async def _admit(tracker: Tracker, request: Request) -> AdmittedRequest:
    body = orjson.dumps({"model": request.model, "words": request.words, "pause_secs": request.pause_secs})
    admission = AdmissionRequest(
        rid=request.rid,
        labels=Labels(request.model, ENDPOINT, "stream" if request.stream else "unary"),
        body=body,
        on_disconnect=OnDisconnect(request.on_disconnect),
        grace_secs=request.grace_secs,
        limits=Limits(request.queue_secs, request.first_token_secs, request.deadline_secs),
        owner=request.owner,
        inflight_limit=request.inflight_limit,
        parent=request.parent,
        place=QueuePlace(request.priority, request.weight, TokenEstimate(1, request.words)),
    )
    if not request.key:
        return await tracker.admit(admission)
    idempotency = Idempotency.of(request.key, ENDPOINT, body, request.owner)
    rid = await idempotency.name(tracker.store, "chatcmpl-", request.rid)
    return await idempotency.admit(tracker, admission._replace(rid=rid, idempotency=idempotency.mark))


async def _stream(admitted: AdmittedRequest, answer: Answer) -> None:
    admitted.stream.arm()
    admitted.connection.disarm()
    admitted.connection.close()
    gracefully = False
    try:
        with UntilLeft(answer):
            await _write(admitted.reader, answer, fails_by_status=True)
            gracefully = True
    finally:
        if gracefully:
            admitted.stream.disarm()
        admitted.stream.close()


async def _unary(admitted: AdmittedRequest, answer: Answer) -> None:
    texts: list[str] = []

    def take(tokens: Tokens) -> bool:
        texts.extend(map(str, tokens.events))
        return True

    end: End | None = None
    with admitted.stream, admitted.connection as connection, UntilLeft(answer):
        admitted.reader.on_events = take
        while end is None:
            item = await admitted.reader.next()
            if isinstance(item, Tokens):
                take(item)
            elif isinstance(item, End):
                end = item
        connection.disarm()
    if end is None:
        answer.begin(499)
        return
    if end.status != Status.COMPLETED:
        answer.begin(ERROR_RESPONSES[ErrorType(end.error_type)].status, end.error_type)
        return
    answer.text = "".join(texts)
    answer.begin(200)


async def _write(reader: TokenReader, answer: Answer, *, fails_by_status: bool) -> None:
    """Write a stream to its end. With `fails_by_status` a failure before the first token is the answer's status."""

    def take(tokens: Tokens) -> bool:
        answer.begin(200)
        for index, event in enumerate(tokens.events):
            answer.tokens.append(Token(tokens.attempt, tokens.first + index, str(event)))
        answer.change()
        return True

    reader.on_events = take
    while True:
        item = await reader.next()
        if item is SILENCE:
            answer.begin(200)
        elif isinstance(item, Tokens):
            take(item)
        elif isinstance(item, End):
            if item.status != Status.COMPLETED:
                status = ERROR_RESPONSES[ErrorType(item.error_type)].status
                answer.begin(status if fails_by_status else 200, item.error_type)
                answer.error = item.error_type
            answer.begin(200)
            answer.done = answer.code == 200
            return


def resume(rid: str, after: TokenId = START) -> Handler:
    """Return the handler of a call that reads a request's stream from behind a token."""

    async def handle(tracker: Tracker, answer: Answer) -> None:
        record = await tracker.store.read(rid)
        if record is None:
            answer.begin(404, "request_not_found")
            return
        ended = record.status.terminal
        if after.number > 0 and ended and record.stream_length == after.number and after.attempt <= record.attempt:
            answer.begin(204)
            return
        opened = await tracker.open_reader(rid, after)
        if opened is None:
            answer.begin(404, "request_not_found")
            return
        answer.begin(200)
        gracefully = False
        try:
            with UntilLeft(answer):
                await _write(opened[1], answer, fails_by_status=False)
                gracefully = True
        finally:
            status = ConnectionStatus.CLOSED_GRACEFULLY if gracefully else ConnectionStatus.CLOSED_UNEXPECTEDLY
            await tracker.close_reader(opened[1], status)

    return handle


def cancel(rid: str, mode: str, wait_secs: float) -> Handler:
    """Return the handler of a cancel."""

    async def handle(tracker: Tracker, answer: Answer) -> None:
        cancellation = await tracker.cancel(rid, CancelMode(mode), "the client asked for it", wait_secs)
        if cancellation is None:
            answer.begin(404, "request_not_found")
            return
        answer.show(cancellation.record)
        answer.begin(200 if cancellation.what == "terminal" else 202)

    return handle


def status(rid: str) -> Handler:
    """Return the handler of a call that reads a record."""

    async def handle(tracker: Tracker, answer: Answer) -> None:
        record = await tracker.store.read(rid)
        if record is None:
            answer.begin(404, "request_not_found")
            return
        answer.show(record)
        answer.begin(200)

    return handle


async def inflight(tracker: Tracker, answer: Answer) -> None:
    """Answer a call that reads the count of requests inflight."""
    answer.total = (await cluster.inflight(tracker.store)).total.inflight
    answer.begin(200)
