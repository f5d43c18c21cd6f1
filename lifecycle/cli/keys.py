"""`keys new`: create an API key, and the line for the file of API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.options import Json
from lifecycle.fastapi.api_key import LEAST_WEIGHT, MOST_INFLIGHT, MOST_WEIGHT, new_key, parse_range
from lifecycle.fastapi.caller import KeyRole
from lifecycle.queue_share import QueueShare
from lifecycle.settings import environment_name
from lifecycle.types import MOST_QUEUED

app = typer.Typer(name="keys", help="Manage API keys.", no_args_is_help=True)

_QUEUED = "of its queued requests for one model; 0 means no limit besides the settings'."


@app.callback()
def _keys() -> None:
    """Manage API keys."""


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Name of the API key; it becomes the owner of the requests made with it.")],
    role: Annotated[
        KeyRole, typer.Option(help="client: access to its own requests. operator: access to everything.")
    ] = KeyRole.CLIENT,
    inflight_limit: Annotated[
        int,
        typer.Option(
            help="Maximum number of its inflight requests over all frontends; 0 means no limit.",
            min=0,
            max=MOST_INFLIGHT,
        ),
    ] = 0,
    weight: Annotated[
        float,
        typer.Option(
            help="Its share of the tokens while others wait too: 4 gets four times as many as 1.",
            min=LEAST_WEIGHT,
            max=MOST_WEIGHT,
        ),
    ] = 1.0,
    priority: Annotated[
        str,
        typer.Option(metavar="LOW:HIGH", help="Range of its requests' priorities; a lower one starts first."),
    ] = "0:0",
    queue_limit: Annotated[int, typer.Option(help=f"Maximum number {_QUEUED}", min=0, max=MOST_QUEUED)] = 0,
    queue_tokens: Annotated[int, typer.Option(help=f"Maximum tokens {_QUEUED}", min=0, max=MOST_QUEUED)] = 0,
    queue_bytes: Annotated[int, typer.Option(help=f"Maximum bytes {_QUEUED}", min=0, max=MOST_QUEUED)] = 0,
    json: Json = False,
) -> int:
    """Create an API key. It is printed once and stored nowhere; the file of API keys holds only its hash."""
    share = QueueShare(queue_limit, queue_tokens, queue_bytes)
    key, kept = new_key(name, role, inflight_limit, weight, parse_range(priority), share)
    if json:
        output.write_json({"key": key, "line": kept.line})
        return 0
    output.write(f"The API key, printed only this once:\n  {key}")
    output.write(f"The line for the file that {environment_name('api_keys')} names:")
    output.write(f"  {kept.line}")
    return 0
