"""Generate a command-line flag for each setting from `Settings`, so that a new setting needs no second definition.

    @with_settings(OPERATOR)
    def ps(settings: Settings, limit: ...) -> int: ...

The command receives the settings from flags and environment; a flag overrides the environment. Only `Settings`
validates values, so a wrong value gives the same message however it was set.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined

from lifecycle.cli import output, unknown_variables
from lifecycle.settings import Settings, SettingsError, environment_name, load

EVERY = tuple(Settings.model_fields)
_PASSWORD_FILES = ("redis_password_file", "redis_sentinel_password_file")
OPERATOR = ("redis_url", *_PASSWORD_FILES, "redis_timeout_secs", "namespace", "shards")

Command = Callable[..., int]

_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def with_settings(names: Sequence[str] = EVERY) -> Callable[[Command], Command]:
    """Add a flag for each named setting to a command, and pass the settings as its first argument.

    Flags that are given before a subcommand's name apply to the subcommand, unless it is given them too.
    """

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        takes_context = any(parameter.annotation is typer.Context for parameter in own)
        flags = [_flag(name) for name in names]
        if names is OPERATOR and not takes_context:
            flags.append(_CONTEXT)

        @functools.wraps(command)
        def run(**arguments: Any) -> int:
            context = arguments.get("context") if takes_context else arguments.pop("context", None)
            before = context.parent.params if context and context.parent else {}
            given = {name: before.get(name) if (after := arguments.pop(name)) is None else after for name in names}
            if "json" in arguments:
                arguments["json"] |= before.get("json", False)
            is_group = context is not None and context.invoked_subcommand is not None
            if names is OPERATOR and not is_group:  # replicas have these lines in their logs
                for line in unknown_variables.warnings():
                    output.complain(f"warning: {line}")
            return command(read_settings(given), **arguments)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *flags)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def read_settings(given: dict[str, Any]) -> Settings:
    """Return the settings from the given flags and the environment.

    Raises SettingsError for an invalid value, including a Redis URL that cannot be parsed and a password file that
    cannot be read.
    """
    settings = load(given)
    if {"redis_url", *_PASSWORD_FILES} & settings.model_fields_set:
        _check_redis_url(settings)
    return settings


def _check_redis_url(settings: Settings) -> None:
    from lifecycle.store.connect import password_files  # imported here: redis-py takes a quarter of a second
    from lifecycle.store.password_file import read_password
    from lifecycle.store.redis import make_client

    passwords = password_files(settings)
    for name, path in zip(_PASSWORD_FILES, passwords, strict=True):
        try:
            if path:
                read_password(path)
        except (OSError, ValueError) as failure:
            raise SettingsError(f"{environment_name(name)}: {_one_line(failure)}") from None
    try:
        make_client(settings.redis_url, socket_timeout_secs=settings.redis_timeout_secs, passwords=passwords)
    except (ValueError, TypeError) as failure:  # the URL may hold a password, so it is not shown
        raise SettingsError(f"{environment_name('redis_url')}: {_one_line(failure)}") from None


def _flag(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    dashed = name.replace("_", "-")
    switch = field.annotation is bool
    option = typer.Option(
        f"--{dashed}/--no-{dashed}" if switch else f"--{dashed}",
        help=f"{field.description} ({_shown(field.default)}{environment_name(name)})",
        metavar=None if switch else _metavar(name, field.annotation),
        show_default=False,
    )
    kind: Any = bool if switch else str
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _metavar(name: str, kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    if get_origin(kind) is Union:
        return "N|" + "|".join(map(str, get_args(get_args(kind)[1])))  # a number, or one of some words
    if kind is int and not name.endswith(("_secs", "_bytes")):
        return "N"
    return name.rpartition("_")[2].upper() if kind in (int, float) else "TEXT"


def _shown(default: Any) -> str:
    if default in ("", PydanticUndefined):
        return ""
    if isinstance(default, bool):
        return "off; " if not default else "on; "
    return f"{default:g}; " if isinstance(default, float) else f"{default}; "


def _one_line(failure: Exception) -> str:
    return " ".join(str(failure).split())
