"""`keys new`: a key for a caller, and the line that goes where the keys are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from frontend.auth.api_keys import MOST_INFLIGHT, KeyRole, new_key
from lifecycle.cli import output
from lifecycle.cli.options import Json
from lifecycle.settings import environment_name

app = typer.Typer(name="keys", help="Keys of callers.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """Keys of callers."""


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Whose it is: owner of the requests made with it.")],
    role: Annotated[KeyRole, typer.Option(help="client: its own requests. operator: everything.")] = KeyRole.CLIENT,
    inflight_limit: Annotated[
        int,
        typer.Option(help="What it may have inflight, at all frontends; 0: no limit.", min=0, max=MOST_INFLIGHT),
    ] = 0,
    json: Json = False,
) -> int:
    """Make a key. It is shown once, and kept nowhere: only its hash goes into the file of keys."""
    key, kept = new_key(name, role, inflight_limit)
    if json:
        output.write_json({"key": key, "line": kept.line})
        return 0
    output.write(f"Its key, shown this once:\n  {key}\nA line for the file that {environment_name('api_keys')} names:")
    output.write(f"  {kept.line}")
    return 0
