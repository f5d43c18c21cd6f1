"""Serve an endpoint through an engine that serves chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine, aclose
from lifecycle.execution.offered_endpoints import offered_endpoints
from lifecycle.execution.reported_usage import reported_usage
from lifecycle.formats.chunk_format import ChunkFormat
from lifecycle.formats.origin import Origin
from lifecycle.translation.translation import TRANSLATIONS, Translation
from lifecycle.types import TRANSLATABLE, TRANSLATED, Endpoint, Event


def engine_for(engine: Engine, endpoint: str, origin: Origin) -> Engine:
    """Return the engine for one attempt: itself, or one that translates if it does not serve the endpoint."""
    if endpoint not in TRANSLATABLE or offered_endpoints(engine).get(endpoint) != TRANSLATED:
        return engine
    return TranslatedEngine(engine, TRANSLATABLE[Endpoint(endpoint)], TRANSLATIONS[endpoint](origin))


class TranslatedEngine:
    """Run an engine for one attempt at a request of another endpoint."""

    def __init__(self, engine: Engine, through: Endpoint, translation: Translation) -> None:
        """`through` is the endpoint that the engine is told."""
        self._engine = engine
        self._through = through
        self._translation = translation
        self._chunks = ChunkFormat()

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[Event]:
        """Yield the translated events. Raise what the engine raises."""
        translation = self._translation
        context.endpoint, context.emitted = self._through, translation.emitted
        for event in translation.begin():
            yield event
        produced = self._engine(translation.request, context)
        try:
            async for event in produced:
                for piece in self._translated(event, context):
                    yield piece
        finally:
            await aclose(produced)
        if not context.is_killed:
            for event in translation.end(context.finish_reason or "stop", reported_usage(context)):
                yield event

    def _translated(self, event: object, context: EngineContext) -> list[Event]:
        """Return the events for one that the engine yielded; its usage and finish reason go to the context."""
        if isinstance(event, str):
            return list(self._translation.add(event))
        produced = self._chunks.read(event)
        if produced.usage is not None:
            context.usage = produced.usage
        if produced.finish_reason is not None and not context.finish_reason:
            context.finish_reason = produced.finish_reason
        return list(self._translation.add(orjson.loads(produced.encoded))) if produced.encoded else []
