"""Calling an engine without a worker."""

from __future__ import annotations

import asyncio
from typing import Any

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine
from lifecycle.types import Event


async def tokens(
    engine: Engine, request: dict[str, Any], context: EngineContext | None = None, bound_secs: float = 5.0
) -> list[Event]:
    """Return all tokens of one answer. Raises TimeoutError after `bound_secs`."""
    async with asyncio.timeout(bound_secs):
        return [token async for token in engine(request, context or EngineContext("r"))]
