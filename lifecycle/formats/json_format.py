"""Read the events of an application's own endpoint: any JSON values."""

from __future__ import annotations

import json

import orjson

from lifecycle.encoding import encodable
from lifecycle.formats.produced import Produced


class JsonFormat:
    """Read events that mean something to their application only. Each is a part of the answer."""

    takes_text = True
    is_one_event = False

    def read(self, event: object) -> Produced:
        """Return what to write for an event. Raises TypeError for a value that is not JSON."""
        return Produced(_encoded(event), has_content=True)

    def is_opening(self, event: object) -> bool:
        """Return False: nothing is known about the events."""
        return False


def _encoded(event: object) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:
        pass
    try:
        # Keys that are no strings, integers beyond 64 bits, and lone surrogates, which have no UTF-8 form.
        return encodable(json.dumps(event, ensure_ascii=False)).encode()
    except (TypeError, ValueError, RecursionError) as failure:
        raise TypeError(
            f"an event of type {type(event).__name__} cannot be written as JSON ({failure}); "
            "yield None, bool, str, numbers, lists and dicts"
        ) from None
