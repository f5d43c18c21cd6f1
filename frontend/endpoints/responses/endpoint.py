"""The endpoint `POST /v1/responses`, in OpenAI's format, with background mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call, MaySee
from frontend.endpoints.responses import validation
from frontend.endpoints.responses.context import with_context
from frontend.endpoints.responses.error import unknown_response
from frontend.endpoints.responses.fold import ResponseFold
from frontend.endpoints.responses.history import read_fold, read_response
from frontend.endpoints.responses.references import with_referenced_items
from frontend.endpoints.responses.sse import ResponseEncoder
from lifecycle.formats import response_object
from lifecycle.formats.response_object import new_response
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, Event


class Responses(ApiEndpoint):
    """Create a response."""

    name = Endpoint.RESPONSES
    paths = ("/v1/responses",)
    id_prefix = "resp_"
    prefixes_client_ids: ClassVar = True
    parameters: ClassVar[Mapping[str, str]] = {"response_format": "text.format"}

    def parse(self, body: bytes) -> Call:
        return validation.parse(body)

    def encoder(self, answer: Answer, call: Call) -> ResponseEncoder:
        base = new_response(answer.id, answer.created_at, call.body, "in_progress")
        return ResponseEncoder(answer.created_at, ResponseFold(base))

    async def resumed_encoder(self, answer: Answer, after: TokenId, store: Store) -> ResponseEncoder:
        read = await read_fold(store, answer, after.number)
        return ResponseEncoder(answer.created_at, read.fold, after.number)

    def fold(self) -> ResponseFold:
        return ResponseFold()

    def is_opening(self, event: Event) -> bool:
        return response_object.is_opening(event)

    async def prepare(self, call: Call, store: Store, may_see: MaySee, limit_bytes: int) -> Call:
        whole = await with_referenced_items(call, store, may_see, limit_bytes)
        return await with_context(whole, store, may_see, limit_bytes)

    def openings(self, rid: str, call: Call) -> tuple[Event, ...]:
        if not call.is_background:
            return ()
        # The time of the admission is Redis's, and is not known yet: encoders and folds put it in.
        queued = new_response(rid, 0, call.body, "queued")
        # OpenAI's SDKs follow a stream only if it begins with `response.created`.
        return tuple({"type": kind, "response": queued} for kind in ("response.created", "response.queued"))

    async def in_background(self, answer: Answer, call: Call, store: Store, *, is_repeated: bool) -> dict[str, Any]:
        if not is_repeated:
            return new_response(answer.id, answer.created_at, call.body, "queued")
        now = await read_response(store, answer.id)
        if now is None:
            raise unknown_response(answer.id)
        return now[1]
