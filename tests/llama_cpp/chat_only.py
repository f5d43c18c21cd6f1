"""The openai engine, as if its upstream served nothing but chat completions: `tests.llama_cpp.chat_only:engine`."""

from __future__ import annotations

from collections.abc import Collection

from lifecycle.settings import Settings
from lifecycle.types import Endpoint
from worker.engines.openai import OpenAIEngine


class ChatOnly(OpenAIEngine):
    """Forward chat completions, so that the worker translates everything else into them."""

    @property
    def endpoints(self) -> Collection[str]:
        """Return the only endpoint."""
        return (Endpoint.CHAT_COMPLETIONS,)


engine = ChatOnly(Settings().openai_base_url)
