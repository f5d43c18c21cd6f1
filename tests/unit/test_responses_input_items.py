"""The input of a response as the API lists it: items with ids that stay the same."""

from __future__ import annotations

from typing import Any

from frontend.endpoints.responses.input_items import input_items, items_of

CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "look",
    "arguments": "{}",
    "status": "completed",
}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def test_every_form_of_input_is_a_list_of_items() -> None:
    assert items_of("hi") == [user("hi")]
    assert items_of([user("hi"), CALL]) == [user("hi"), CALL]
    assert items_of(None) == []


def test_listed_items_have_ids_that_stay_the_same() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        CALL,
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    listed = input_items({"input": items})
    assert listed == input_items({"input": items})
    assert len({item["id"] for item in listed}) == 5
    assert [item["id"].partition("_")[0] for item in listed] == ["msg", "msg", "msg", "fc", "fco"]
    assert listed[3] == CALL
    assert listed[0] | {"id": ""} == {
        "type": "message",
        "id": "",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    assert listed[2]["content"] == [{"type": "output_text", "text": "hello", "annotations": []}]
    assert "id" not in items[0]
