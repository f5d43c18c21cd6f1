"""Know how far an answer in the format of the Responses API has come: its items, and which of their parts are open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT_FIELDS = {"output_text": "text", "reasoning_text": "text", "refusal": "refusal"}
"""The kinds of parts of an item, as their events name them, and the field of a part that has its text."""


class Item:
    """Hold one item of the output while it is written. Its texts grow as lists of their pieces.

    `content` has the finished parts. `part` is the open one, and None of an item that has none; the arguments of a
    function call are its text. `text_done` says that the text of the open part, or the arguments, are complete.
    """

    __slots__ = ("content", "data", "done", "index", "logprobs", "part", "pieces", "text_done")

    def __init__(self, index: int, data: dict[str, Any]) -> None:
        """Begin the item at `index` of the output; `data` is the item as it is announced."""
        self.index = index
        self.data = data
        self.content: list[dict[str, Any]] = []
        self.part: dict[str, Any] | None = None
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.text_done = False
        self.done = False

    @property
    def id(self) -> str:
        """Return the item's id."""
        return str(self.data["id"])

    @property
    def text(self) -> str:
        """Return the text of the open part so far, or the arguments so far."""
        return "".join(self.pieces)

    def finished_part(self) -> dict[str, Any]:
        """Return the open part with its whole text."""
        assert self.part is not None
        part = {**self.part, TEXT_FIELDS[self.part["type"]]: self.text}
        return part | ({"logprobs": self.logprobs} if "logprobs" in part else {})

    def finished(self, status: str) -> dict[str, Any]:
        """Return the whole item with this status."""
        whole = {"arguments": self.text} if self.data["type"] == "function_call" else {"content": self.content}
        return {**self.data, **whole, "status": status}


class ResponsesAnswer:
    """Fold the events of a translated answer. An answer that another attempt left is folded in the same way.

    `openings` has the types of the events that have opened it, and `pieces` is how many pieces its texts came in.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.pieces = 0
        self.openings: set[str] = set()
        self.is_complete = False

    @property
    def open_text(self) -> Item | None:
        """Return the message or reasoning that is being written; None when there is none."""
        for item in reversed(self.items):
            if not item.done and item.data["type"] != "function_call":
                return item
        return None

    def output(self) -> list[dict[str, Any]]:
        """Return the items of an answer of which each is done."""
        return [item.data for item in self.items]

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the next event of the answer."""
        kind = event["type"]
        if kind.endswith(".delta"):
            item = self.items[event["output_index"]]
            self.pieces += 1
            item.pieces.append(event["delta"])
            item.logprobs += event.get("logprobs", ())
        elif "response" in event:
            self._note_response(kind)
        elif kind == "response.output_item.added":
            self.items.append(Item(event["output_index"], event["item"]))
        else:
            self._change(self.items[event["output_index"]], kind, event)

    def _note_response(self, kind: str) -> None:
        if kind in ("response.completed", "response.incomplete"):
            self.is_complete = True
        else:
            self.openings.add(kind)

    def _change(self, item: Item, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "response.content_part.added":
            item.part, item.pieces, item.logprobs, item.text_done = event["part"], [], [], False
        elif kind == "response.content_part.done":
            item.content.append(event["part"])
            item.part = None
        elif kind == "response.output_item.done":
            item.data, item.done = event["item"], True
        else:
            item.text_done = True
