"""The endpoints that are forwarded to an engine as they are: one JSON object in, one JSON object out."""

from __future__ import annotations

from typing import ClassVar

from frontend.endpoints.body_rules import MODEL, load_object
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call
from frontend.endpoints.forwards.answer import AnswerEncoder, AnswerFold
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, RequestType


class _Forward(ApiEndpoint):
    """Describe what all forwards have in common.

    Servers disagree about their fields: a text to embed is `input` or `messages`, a text to tokenize is `prompt` or
    `content`. So only the model is checked here; everything else is the engine's to judge. A `stream` in the body has
    no effect.
    """

    def parse(self, body: bytes) -> Call:
        fields = load_object(body)
        model = fields.get("model")
        if model is not None:
            MODEL.check("model", model)
        return Call(self.name, model or "", RequestType.UNARY, fields)

    def encoder(self, answer: Answer, call: Call) -> AnswerEncoder:
        return AnswerEncoder(answer.id)

    async def resumed_encoder(self, answer: Answer, after: TokenId, store: Store) -> AnswerEncoder:
        return AnswerEncoder(answer.id)

    def fold(self) -> AnswerFold:
        return AnswerFold()


class Embeddings(_Forward):
    """Embed texts."""

    name: ClassVar = Endpoint.EMBEDDINGS
    paths: ClassVar = ("/v1/embeddings",)
    id_prefix: ClassVar = "embd-"


class Rerank(_Forward):
    """Order documents by how well they answer a query."""

    name: ClassVar = Endpoint.RERANK
    paths: ClassVar = ("/v1/rerank", "/rerank")
    id_prefix: ClassVar = "rerank-"


class Score(_Forward):
    """Score pairs of texts."""

    name: ClassVar = Endpoint.SCORE
    paths: ClassVar = ("/v1/score", "/score")
    id_prefix: ClassVar = "score-"


class Tokenize(_Forward):
    """Split a text into tokens."""

    name: ClassVar = Endpoint.TOKENIZE
    paths: ClassVar = ("/tokenize",)
    id_prefix: ClassVar = "tok-"


class Detokenize(_Forward):
    """Put tokens together to a text."""

    name: ClassVar = Endpoint.DETOKENIZE
    paths: ClassVar = ("/detokenize",)
    id_prefix: ClassVar = "detok-"


FORWARDS: tuple[ApiEndpoint, ...] = (Embeddings(), Rerank(), Score(), Tokenize(), Detokenize())
