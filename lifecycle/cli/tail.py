"""`tail`: print the text of a request as it is generated, straight from its token stream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.errors import StoreUnavailable
from lifecycle.formats.event_text import answers_as_text, text_of
from lifecycle.ids import START, TokenId, is_request_id
from lifecycle.settings import Settings
from lifecycle.types import Endpoint, Status

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store
    from lifecycle.tokens.items import End, Tokens

_LAYOUT = "\n\t"


def _token_id(value: str) -> str:
    if value and TokenId.parse(value) is None:
        raise typer.BadParameter(f"{value!r} is not a token id; write <attempt>-<number>, for example 1-42")
    return value


@with_settings(OPERATOR)
def tail(
    settings: Settings,
    rid: Annotated[str, typer.Argument(metavar="ID", help="Id of the request.")],
    after: Annotated[str, typer.Option(help="Begin after this token, for example 1-42.", callback=_token_id)] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each event and one for the end.")
    ] = False,
) -> int:
    """Print the text that a request generates, from its start to its end, live. Exits 1 unless it completed."""
    from lifecycle.cli.operate import operate
    from lifecycle.tokens.follow import follow
    from lifecycle.tokens.items import End

    async def work(store: Store) -> int:
        record = await store.read(rid) if is_request_id(rid) else None
        if record is None:
            output.complain(f"{rid}: no such request; it is unknown or its record has expired")
            return 1
        own_events = record.endpoint not in tuple(Endpoint)
        printer = _JsonPrinter() if json else _TextPrinter(own_events)
        position = TokenId.parse(after) or START
        try:
            async for item in follow(store, rid, position):
                if isinstance(item, End):
                    return printer.end(item)
                position = TokenId(item.attempt, item.last)
                printer.tokens(item._replace(events=answers_as_text(record.endpoint, item.events)))
        except StoreUnavailable as failure:
            raise StoreUnavailable(f"{failure.message} (continue with --after {position})") from None
        raise AssertionError("follow() returned without an End")

    return operate(settings, work)


class _TextPrinter:
    def __init__(self, own_events: bool) -> None:
        """`own_events`: they are an application's own, and each is printed as a line of JSON."""
        self._own_events = own_events
        self._terminal = sys.stdout.isatty()
        self._ends_line = True

    def tokens(self, tokens: Tokens) -> None:
        if self._own_events:
            text = "".join(orjson.dumps(event).decode() + "\n" for event in tokens.events)
        else:
            text = "".join(map(text_of, tokens.events))
        if not text:
            return
        self._ends_line = text.endswith("\n")
        sys.stdout.write(output.printable(text, _LAYOUT) if self._terminal else text)
        sys.stdout.flush()

    def end(self, end: End) -> int:
        if self._terminal and not self._ends_line:
            output.write("")
        if end.status == Status.COMPLETED:
            return 0
        output.complain(f"{end.status}: {end.error_type}: {end.message}")
        return 1


class _JsonPrinter:
    def tokens(self, tokens: Tokens) -> None:
        for number, event in enumerate(tokens.events, tokens.first):
            content: dict[str, object] = {"text": event} if isinstance(event, str) else {"event": event}
            _write_line({"id": f"{tokens.attempt}-{number}"} | content)
        sys.stdout.flush()

    def end(self, end: End) -> int:
        _write_line(
            {
                "status": end.status,
                "error_type": end.error_type,
                "error_message": end.message or None,
                "finish_reason": end.finish_reason or None,
                "output_tokens": end.output_tokens,
            }
        )
        return 0 if end.status == Status.COMPLETED else 1


def _write_line(value: dict[str, object]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
