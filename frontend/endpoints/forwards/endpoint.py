"""The endpoints that are forwarded to an engine as they are: one JSON object in, one JSON object out."""

from __future__ import annotations

from frontend.endpoints.body_rules import MODEL, load_object
from frontend.endpoints.endpoint import Answer, ApiEndpoint, Call
from frontend.endpoints.forwards.answer import AnswerEncoder, AnswerFold
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, RequestType


class Forward(ApiEndpoint):
    """Forward the calls of one endpoint.

    Servers disagree about their fields: a text to embed is `input` or `messages`, a text to tokenize is `prompt` or
    `content`. So only the model is checked here; everything else is the engine's to judge. A `stream` in the body has
    no effect.
    """

    def __init__(self, name: Endpoint, id_prefix: str, summary: str, *paths: str) -> None:
        """`summary` says in the description of the API what the engine does."""
        self.name = name
        self.id_prefix = id_prefix
        self.summary = summary
        self.paths = paths

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


FORWARDS = (
    Forward(Endpoint.EMBEDDINGS, "embd-", "Embed texts", "/v1/embeddings"),
    Forward(Endpoint.RERANK, "rerank-", "Order documents by how well they answer a query", "/v1/rerank", "/rerank"),
    Forward(Endpoint.SCORE, "score-", "Score pairs of texts", "/v1/score", "/score"),
    Forward(Endpoint.TOKENIZE, "tok-", "Split a text into tokens", "/tokenize"),
    Forward(Endpoint.DETOKENIZE, "detok-", "Put tokens together to a text", "/detokenize"),
)
