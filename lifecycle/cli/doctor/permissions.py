"""Check that the access rules of Redis allow the replicas and this command what they need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import orjson

from lifecycle.cli.doctor.finding import Finding, fail, ok, warn
from lifecycle.errors import StoreForbidden
from lifecycle.store.permissions import (
    find_forbidden,
    how_to_allow,
    needed_commands,
    operators_commands,
    operators_without,
)
from lifecycle.store.transitions import Store
from lifecycle.types import Role

_SHOWN = 5


async def check_permissions(store: Store) -> list[Finding]:
    """Return a finding for each set of commands that Redis forbids its users. Raises StoreUnavailable.

    A replica tells the cluster itself what it is forbidden, unless the commands for that are forbidden too. Often it is
    the same user as this command's, whose own rights are checked on every server.
    """
    findings = []
    own = await _forbidden(store, operators_commands())
    if own:
        names = ", ".join(own)
        if await _is_of_replicas(store):
            message = (
                f"this command's user may not run {names}, without which {', '.join(operators_without(own))} fails"
            )
            findings.append(warn("permissions", message, _as_an_operator(own)))
        else:
            message = f"Redis forbids this command's user, and all replicas that share it: {names}"
            findings.append(fail("permissions", message, how_to_allow(own)))
    told: dict[tuple[str, ...], list[str]] = defaultdict(list)
    try:
        replicas = (await store.roster()).replicas
    except StoreForbidden:
        if not findings:
            raise
        return findings
    for replica in replicas:
        told[tuple(orjson.loads(replica.about).get("forbidden", ()))].append(replica.id)
    for commands, ids in sorted(told.items()):
        if commands:
            message = f"Redis forbids {', '.join(sorted(ids)[:_SHOWN])}: {', '.join(commands)}"
            findings.append(fail("permissions", message, f"no request is served there; {how_to_allow(commands)}"))
    return findings or [ok("permissions", "nothing is forbidden that is needed")]


async def incomplete(store: Store, check: str, failure: StoreForbidden) -> Finding:
    """Return the finding that a check could not be completed. Raises StoreUnavailable."""
    message = f"the check of the {check} is not complete: {failure.message}"
    if await _is_of_replicas(store):
        return warn("permissions", message, _as_an_operator(failure.commands))
    return fail("permissions", message, how_to_allow(failure.commands))


async def _is_of_replicas(store: Store) -> bool:
    """Return whether this command's user may run all that a frontend or a worker needs, so that one could be its."""
    with suppress(StoreForbidden):
        return not all([await _forbidden(store, needed_commands(role)) for role in Role])
    return False


async def _forbidden(store: Store, commands: Sequence[str]) -> list[str]:
    """Return which of the commands this command's user may not run on one of the servers."""
    prefixes = (store.keys.control, *store.keys.prefixes)
    return sorted({command for prefix in prefixes for command in await find_forbidden(store, commands, prefix)})


def _as_an_operator(commands: Sequence[str]) -> str:
    return f"replicas do not need this; run it as the operator of deploy/redis/users.acl, or {how_to_allow(commands)}"
