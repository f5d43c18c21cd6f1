"""Check that the access rules of Redis allow the replicas and this command what they need."""

from __future__ import annotations

from collections import defaultdict

import orjson

from lifecycle.cli.doctor.finding import Finding, fail, ok
from lifecycle.store.permissions import find_forbidden, how_to_allow, operators_commands
from lifecycle.store.transitions import Store

_CHECK = "permissions"
_SHOWN = 5


async def check_permissions(store: Store) -> list[Finding]:
    """Return a finding for each set of commands that Redis forbids its users. Raises StoreUnavailable.

    A replica tells the cluster itself what it is forbidden, unless the commands for that are forbidden too. Often it is
    the same user as this command's, whose own rights are checked on every server.
    """
    findings = []
    prefixes = (store.keys.control, *store.keys.prefixes)
    own = {command for prefix in prefixes for command in await find_forbidden(store, operators_commands(), prefix)}
    if own:
        message = f"Redis forbids this command's user, and all replicas that share it: {', '.join(sorted(own))}"
        findings.append(fail(_CHECK, message, how_to_allow(sorted(own))))
    told: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for replica in (await store.roster()).replicas:
        told[tuple(orjson.loads(replica.about).get("forbidden", ()))].append(replica.id)
    for commands, ids in sorted(told.items()):
        if commands:
            message = f"Redis forbids {', '.join(sorted(ids)[:_SHOWN])}: {', '.join(commands)}"
            findings.append(fail(_CHECK, message, f"no request is served there; {how_to_allow(commands)}"))
    return findings or [ok(_CHECK, "nothing is forbidden that is needed")]
