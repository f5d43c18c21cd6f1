"""`settings`: show the settings that the running cluster shares, and change some of them for all its replicas."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.operate import operate
from lifecycle.cli.options import Json
from lifecycle.settings import PREFIX, Settings, SettingsError, environment_name, load
from lifecycle.store.common_settings import CHANGEABLE, as_text
from lifecycle.store.transitions import Store

app = typer.Typer(name="settings", help="Show and change the settings that the running cluster shares.")

_NOBODY = "no replica has joined namespace {!r} yet; start one first"


@app.callback(invoke_without_command=True)
@with_settings(OPERATOR)
def show(settings: Settings, context: typer.Context, json: Json = False) -> int:
    """Show the settings that all replicas of the cluster run with."""
    if context.invoked_subcommand is not None:
        return 0

    async def work(store: Store) -> int:
        common = await store.configuration()
        if json:
            output.write_json(common)
        elif not common:
            output.complain(_NOBODY.format(settings.namespace))
        else:
            rows = [[name, as_text(value), "yes" if name in CHANGEABLE else "no"] for name, value in common.items()]
            output.write("\n".join(output.table(("NAME", "VALUE", "CHANGEABLE"), rows)))
        return 0 if common or json else 1

    raise typer.Exit(operate(settings, work))


@app.command("set")
@with_settings(OPERATOR)
def set_(
    settings: Settings,
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CHANGEABLE)}.")],
    value: Annotated[str, typer.Argument(help="The new value.")],
    json: Json = False,
) -> int:
    """Change a setting for the whole running cluster, within a heartbeat. Set it for new replicas too."""
    field, checked = _checked(name, value)

    async def work(store: Store) -> int:
        before = await store.configure(field, checked)
        if before is None:
            output.complain(_NOBODY.format(settings.namespace))
            return 1
        after = as_text(checked)
        if json:
            output.write_json({"name": field, "before": before, "value": after})
        else:
            output.write(f"{field}: {before} → {after}; start new replicas with {environment_name(field)}={after}")
        return 0

    return operate(settings, work)


def _checked(name: str, value: str) -> tuple[str, Any]:
    """Return the setting's field and its checked value. Raises SettingsError."""
    field = name.removeprefix(PREFIX).replace("-", "_").lower()
    if field not in CHANGEABLE:
        raise SettingsError(f"{name:.100} cannot be changed while the cluster runs; these can: {', '.join(CHANGEABLE)}")
    return field, getattr(load({field: value}), field)
