"""Check events of the Responses API by the types and the accumulator of OpenAI's own client library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseCompletedEvent, ResponseIncompleteEvent, ResponseStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def accumulate(events: Sequence[Any]) -> dict[str, Any]:
    """Return the response object with which the events end.

    Each stored event must be valid for the library, and what its accumulator has put together from the pieces must be
    what the response object has.
    """
    state = ResponseStreamState[Any](input_tools=omit, text_format=omit)
    done: dict[int, dict[str, Any]] = {}
    texts: dict[tuple[int, int | None], str] = {}
    for number, event in enumerate(events):
        assert "sequence_number" not in event
        typed = _EVENT.validate_python({**event, "sequence_number": number})
        assert typed.type == event["type"]
        for built in state.handle_event(typed):
            text = getattr(built, "snapshot", None)
            if text is not None:
                texts[event["output_index"], event.get("content_index")] = text
        if event["type"] == "response.output_item.done":
            assert done.setdefault(event["output_index"], event["item"]) is event["item"], "the item is done twice"
    assert isinstance(typed, ResponseCompletedEvent | ResponseIncompleteEvent)
    response: dict[str, Any] = events[-1]["response"]
    assert dict(enumerate(response["output"])) == done
    for (item, part), text in texts.items():
        whole = response["output"][item]
        assert text == (whole["arguments"] if part is None else whole["content"][part]["text"])
    return response


def kinds(events: Sequence[Any]) -> list[str]:
    """Return the types of the events without "response.", and with the piece of text of each delta."""
    named = [(event["type"].removeprefix("response."), event.get("delta")) for event in events]
    return [kind if delta is None else f"{kind} {delta}" for kind, delta in named]
