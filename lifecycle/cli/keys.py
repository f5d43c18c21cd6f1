"""`keys new`: create an API key, and the line for the file of API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.options import Json
from lifecycle.fastapi.api_keys import MOST_INFLIGHT, KeyRole, new_key
from lifecycle.settings import environment_name

app = typer.Typer(name="keys", help="Manage API keys.", no_args_is_help=True)


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
    json: Json = False,
) -> int:
    """Create an API key. It is printed once and stored nowhere; the file of API keys holds only its hash."""
    key, kept = new_key(name, role, inflight_limit)
    if json:
        output.write_json({"key": key, "line": kept.line})
        return 0
    output.write(f"The API key, printed only this once:\n  {key}")
    output.write(f"The line for the file that {environment_name('api_keys')} names:")
    output.write(f"  {kept.line}")
    return 0
