"""Complete what some servers leave out of the events of the Responses API: which item and part they belong to."""

from __future__ import annotations

from typing import Any

_OF_PARTS = ("response.content_part.", "response.output_text.", "response.reasoning_text.", "response.refusal.")


class EventPlaces:
    """Put the indexes into the events of one stream that lack them, as those of llama.cpp do.

    Items are told apart by their ids, and are counted in the order in which they come. Client libraries, and whoever
    folds the events, rely on the indexes.
    """

    __slots__ = ("_items", "_parts")

    def __init__(self) -> None:
        self._items: dict[str, int] = {}  # the output_index by the item's id
        self._parts: dict[str, int] = {}  # how many parts have begun, by the item's id

    def complete(self, event: dict[str, Any]) -> None:
        """Put into an event what it lacks. One that names no item is left as it is."""
        item, kind = event.get("item"), event["type"]
        item_id = item.get("id") if isinstance(item, dict) else event.get("item_id")
        if not isinstance(item_id, str):
            return
        if "output_index" in event:
            self._items[item_id] = event["output_index"]
        else:
            event["output_index"] = self._items.setdefault(item_id, len(self._items))
        if not kind.startswith(_OF_PARTS):
            return
        if kind == "response.content_part.added":
            self._parts[item_id] = self._parts.get(item_id, 0) + 1
        event.setdefault("content_index", max(0, self._parts.get(item_id, 0) - 1))
        part = event.get("part")
        if isinstance(part, dict) and part.get("type") == "output_text":
            part.setdefault("annotations", [])
        if kind in ("response.output_text.delta", "response.output_text.done"):
            event.setdefault("logprobs", [])
