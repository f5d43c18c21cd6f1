"""The endpoints `POST /v1/chat/completions` and `POST /v1/completions`, in OpenAI's format."""

from __future__ import annotations

from frontend.endpoints.completions import validation
from frontend.endpoints.completions.choices import read_progress
from frontend.endpoints.completions.fold import CompletionFold
from frontend.endpoints.completions.sse import ChunkEncoder
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint


class Completions(ApiEndpoint):
    """Complete a conversation or a text: both answer with chunks that have choices."""

    def __init__(self, name: Endpoint, id_prefix: str, path: str) -> None:
        self.name = name
        self.id_prefix = id_prefix
        self.paths = (path,)

    def parse(self, body: bytes) -> Call:
        return validation.parse(self.name, body)

    def encoder(self, answer: Answer, call: Call) -> ChunkEncoder:
        return ChunkEncoder(self.name, answer.id, answer.model, int(answer.created_at), call.include_usage)

    async def resumed_encoder(self, answer: Answer, after: TokenId, store: Store) -> ChunkEncoder:
        progress = await read_progress(store, answer.id, after)
        created = int(answer.created_at)
        return ChunkEncoder(self.name, answer.id, answer.model, created, answer.include_usage, progress)

    def fold(self) -> CompletionFold:
        return CompletionFold(self.name)


COMPLETIONS = (
    Completions(Endpoint.CHAT_COMPLETIONS, "chatcmpl-", "/v1/chat/completions"),
    Completions(Endpoint.COMPLETIONS, "cmpl-", "/v1/completions"),
)
