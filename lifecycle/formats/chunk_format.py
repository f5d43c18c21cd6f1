"""Read the events of chat and text completions: texts, and chunks without their envelope."""

from __future__ import annotations

import orjson

from lifecycle.formats import chunk_events
from lifecycle.formats.produced import Produced
from lifecycle.types import Event


class ChunkFormat:
    """Read chunks. Their usage is taken out, because it belongs to the end of the answer."""

    takes_text = True
    is_one_event = False

    def read(self, event: object) -> Produced:
        """Return what to write for a dict; nothing for a chunk that has only the usage. Raises TypeError."""
        chunk, encoded = chunk_events.encode(event)
        usage = None
        if "usage" in chunk:
            usage = chunk_events.take_usage(chunk)
            encoded = orjson.dumps(chunk)
        has_content, finish_reason = chunk_events.examine(chunk)
        if not has_content and chunk_events.is_empty(chunk):
            encoded, finish_reason = b"", None
        return Produced(encoded, has_content, False, finish_reason, usage)

    def is_opening(self, event: Event) -> bool:
        """Return False: every chunk is a part of the answer."""
        return False
