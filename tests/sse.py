"""Reading server-sent events as a client does, over raw HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass
class Event:
    """One event; `data` is parsed JSON, or "[DONE]"."""

    data: Any
    id: str | None = None
    event: str | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.data, dict) or not self.data.get("choices"):
            return ""
        choice = self.data["choices"][0]
        return str(choice.get("text") or choice.get("delta", {}).get("content") or "")


@dataclass
class Stream:
    response: httpx2.Response
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ended: bool = False  # by the server, in order: the response is whole

    def __post_init__(self) -> None:
        self._iterator = self._parse()  # one for all, so that reading can stop and go on

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._iterator

    async def _parse(self) -> AsyncIterator[Event]:
        event = Event(None)
        async for line in self.response.aiter_lines():
            if line.startswith(":"):
                self.comments.append(line)
            elif line.startswith("id:"):
                event.id = line[3:].strip()
            elif line.startswith("event:"):
                event.event = line[6:].strip()
            elif line.startswith("data:"):
                data = line[5:].strip()
                event.data = data if data == "[DONE]" else json.loads(data)
            elif not line and event.data is not None:
                self.events.append(event)
                yield event
                event = Event(None)
        self.ended = True

    async def read(self) -> list[Event]:
        """Read the stream to its end."""
        async for _ in self:
            pass
        return self.events

    async def read_tokens(self, count: int) -> str:
        """Read so many token events and return their text. The stream stays open."""
        seen, text = 0, ""
        async for event in self:
            if event.id is not None:
                seen, text = seen + 1, text + event.text
            if seen == count:
                break
        return text


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events)


def error_of(events: list[Event]) -> dict[str, Any] | None:
    """The error frame, which must come right before [DONE]."""
    assert events
    assert events[-1].data == "[DONE]"
    if len(events) > 1 and "error" in events[-2].data:
        error: dict[str, Any] = events[-2].data["error"]
        return error
    return None


def chat(content: str, model: str = "echo", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": True, **fields}


@asynccontextmanager
async def post(http: httpx2.AsyncClient, url: str, body: dict[str, Any], **headers: str) -> AsyncIterator[Stream]:
    """`X_On_Disconnect="continue"` gives the header X-On-Disconnect."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.stream("POST", url + "/v1/chat/completions", json=body, headers=names) as response:
        yield Stream(response)


@asynccontextmanager
async def resume(http: httpx2.AsyncClient, url: str, rid: str, after: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": after} if after else {}
    async with http.stream("GET", f"{url}/v1/requests/{rid}/stream", headers=headers) as response:
        yield Stream(response)
