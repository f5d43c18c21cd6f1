"""Checks that the Redis user of a replica may run every command that the replica needs.

The check runs when a replica starts, so that a mistake in the access rules is told once and by name. If the rules are
changed later, each script refuses to begin: `lua/include/commands.lua`.
"""

from __future__ import annotations

from functools import cache

from lifecycle.encoding import encode_json
from lifecycle.errors import StoreError
from lifecycle.store import script_loader
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Role

_READING_SCRIPTS = "no-writes"
_OF_WORKERS = "take"  # the script that no frontend runs
_OUTSIDE_OF_SCRIPTS = {
    Role.FRONTEND: ("HSCAN", "PERSIST", "SSUBSCRIBE", "SUBSCRIBE", "ZREVRANGE"),
    Role.WORKER: ("HSCAN", "PUBLISH", "SUBSCRIBE"),
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


async def check_permissions(store: ScriptRunner, role: Role, retry_for_secs: float) -> None:
    """Ask Redis whether this process may run all commands of its role.

    Raises StoreError that names those which it may not, and StoreUnavailable when Redis does not answer within
    `retry_for_secs`.
    """
    needed = encode_json(needed_commands(role))
    forbidden = await store.run("forbidden", store.keys.prefixes[0], needed, retry_for_secs=retry_for_secs)
    if forbidden:
        rules = [f"+{as_text(command).lower().replace(' ', '|')}" for command in forbidden]
        raise StoreError(
            f"Redis forbids its user commands that a {role.value} needs; allow them with ACL SETUSER <user> "
            + " ".join(rules)
        )
