"""Checks that the Redis user of a replica may run every command that the replica needs.

The check runs when a replica starts, so that a mistake in the access rules is told once and by name. If the rules are
changed later, each script refuses to begin (`lua/include/commands.lua`), and the replica checks again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from lifecycle.encoding import encode_json
from lifecycle.errors import StoreError, StoreForbidden
from lifecycle.store import script_loader
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Role

_READING_SCRIPTS = "no-writes"
_OF_WORKERS = "take"  # the script that no frontend runs
# Not EVAL and EVALSHA: servers crash when a script asks about these for a user who has a key pattern.
_OUTSIDE_OF_SCRIPTS = {
    Role.FRONTEND: ("HSCAN", "SSUBSCRIBE", "SUBSCRIBE", "ZREVRANGE"),
    Role.WORKER: ("HSCAN", "PUBLISH", "SUBSCRIBE"),
}
_OF_OPERATORS = {  # scripts, each with a command of operators that runs it
    "cancel": "cancel",
    "configure": "settings",
    "history": "tail",
    "instruct": "replicas",
    "list": "ps",
    "read": "why",
    "timeline": "why",
}


@cache
def needed_commands(role: Role) -> tuple[str, ...]:
    """Return the commands that a replica of this role cannot do without, such as `HSET` and `ZADD`.

    A worker reads no lists, so it needs the commands of those scripts only that write. A frontend takes no requests.
    """
    names = [name for name in script_loader.names() if role is Role.WORKER or name != _OF_WORKERS]
    sources = [script_loader.load(name).source for name in names]
    if role is Role.WORKER:
        sources = [source for source in sources if _READING_SCRIPTS not in source.partition("\n")[0]]
    in_scripts = {command for source in sources for command in script_loader.commands_of(source)}
    return tuple(sorted(in_scripts.union(_OUTSIDE_OF_SCRIPTS[role])))


@cache
def operators_commands() -> tuple[str, ...]:
    """Return the commands that an operator's commands, such as `lifecycle cancel`, cannot do without."""
    sources = [script_loader.load(name).source for name in _OF_OPERATORS]
    return tuple(sorted({command for source in sources for command in script_loader.commands_of(source)}))


def operators_without(commands: Collection[str]) -> list[str]:
    """Return which of an operator's commands do not work without these of Redis, such as `'lifecycle ps'`."""
    lacking = {
        f"'lifecycle {name}'"
        for script, name in _OF_OPERATORS.items()
        if not set(script_loader.commands_of(script_loader.load(script).source)).isdisjoint(commands)
    }
    return sorted(lacking)


async def find_forbidden(
    store: ScriptRunner, commands: Sequence[str], prefix: str, retry_for_secs: float = 0.0
) -> tuple[str, ...]:
    """Ask the server of this prefix which of the commands this process may not run there. Raises StoreUnavailable.

    It costs Redis about as much as half a heartbeat.
    """
    reply = await store.run("forbidden", prefix, encode_json(commands), retry_for_secs=retry_for_secs)
    return tuple(as_text(command) for command in reply)


def forbidden_error(role: Role, commands: Sequence[str]) -> StoreForbidden:
    """Return the error that names commands which a replica of this role needs, and what to do."""
    return StoreForbidden(
        f"Redis forbids its user commands that a {role.value} needs; {how_to_allow(commands)}", commands=tuple(commands)
    )


def how_to_allow(commands: Sequence[str]) -> str:
    """Return the command with which an administrator of Redis allows these commands, within a sentence.

    Without a command, something else is forbidden: a key or a channel.
    """
    if not commands:
        return "compare ACL GETUSER <user> with deploy/redis/users.acl"
    rules = " ".join(f"+{command.lower().replace(' ', '|')}" for command in commands)
    return f"allow them with ACL SETUSER <user> {rules}"


async def check_permissions(store: ScriptRunner, role: Role, retry_for_secs: float) -> None:
    """Ask Redis whether this process may run all commands of its role.

    Raises StoreError that names those which it may not, and StoreUnavailable when Redis does not answer within
    `retry_for_secs`.
    """
    forbidden = await find_forbidden(store, needed_commands(role), store.keys.prefixes[0], retry_for_secs)
    if forbidden:
        raise StoreError(forbidden_error(role, forbidden).message)


async def check_usable(store: ScriptRunner, role: Role) -> None:
    """Check that Redis answers, takes new data and allows the commands of this role, on one server at least.

    Raises StoreUnavailable; StoreForbidden that names the commands, StoreFull when only the memory lacks.
    """

    async def ask(prefix: str) -> None:
        forbidden = await find_forbidden(store, needed_commands(role), prefix)
        if forbidden:
            raise forbidden_error(role, forbidden)

    try:
        await store.on_any_server(ask)
    except StoreForbidden as failure:
        raise forbidden_error(role, failure.commands) if failure.commands else failure from None
    await store.ping()
