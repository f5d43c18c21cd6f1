"""`doctor`: check that Redis is suitable and that the cluster is healthy. It only reads, unless it is to repair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.doctor.finding import Finding, Level
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.errors import StoreForbidden
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store

_COLORS = {Level.OK: output.GREEN, Level.WARN: output.YELLOW, Level.FAIL: output.RED}


@with_settings(OPERATOR)
def doctor(
    settings: Settings,
    repair: Annotated[
        bool, typer.Option("--repair", help="End first what a lost replica has left behind, as every replica does.")
    ] = False,
    json: Json = False,
) -> int:
    """Check Redis and the cluster. Each finding is ok, warn or fail and says what to do. Exits 1 on a fail."""
    from lifecycle.cli.doctor.repair import repair as repair_cluster
    from lifecycle.cli.operate import operate

    async def work(store: Store) -> int:
        if repair:
            await repair_cluster(store)
        findings = await examine(store)
        failed = any(finding.level is Level.FAIL for finding in findings)
        if json:
            output.write_json(
                {"object": "doctor", "ok": not failed, "findings": [finding._asdict() for finding in findings]}
            )
        else:
            show(findings)
        return 1 if failed else 0

    return operate(settings, work)


async def examine(store: Store) -> list[Finding]:
    """Run all checks and return their findings. One that needs a forbidden command ends with a finding about it.

    Raises StoreUnavailable when Redis is out of reach.
    """
    from lifecycle.cli.doctor.cluster import check_cluster
    from lifecycle.cli.doctor.keys import check_keys
    from lifecycle.cli.doctor.permissions import check_permissions, incomplete
    from lifecycle.cli.doctor.redis_server import check_server
    from lifecycle.cli.doctor.requests import check_requests

    checks = {
        "server": check_server,
        "permissions": check_permissions,
        "cluster": check_cluster,
        "requests": check_requests,
        "keys": check_keys,
    }
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings += await check(store)
        except StoreForbidden as failure:
            findings.append(await incomplete(store, name, failure))
    return findings


def show(findings: Sequence[Finding]) -> None:
    """Print the findings as aligned lines, each with its advice below it."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = output.paint(f"{finding.level:<4}", _COLORS[finding.level])
        output.write(f"{level}  {finding.check:<{width}}  {output.printable(finding.message)}")
        if finding.advice:
            output.write(f"{'':4}  {'':{width}}  → {output.printable(finding.advice)}")
