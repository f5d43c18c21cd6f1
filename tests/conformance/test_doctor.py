"""`lifecycle doctor` on a cluster that is well, and on one that a lost server would take down as a whole."""

from __future__ import annotations

from lifecycle.cli.doctor.command import examine
from lifecycle.cli.doctor.finding import Level
from lifecycle.store.connect import open_store
from tests.cluster import Cluster

COVERAGE = "cluster-require-full-coverage"


async def test_what_it_finds(cluster: Cluster, deployment: str) -> None:
    async with open_store(cluster.settings) as store:
        findings = {finding.check: finding for finding in await examine(store)}
        assert [found for found in findings.values() if found.level is Level.FAIL] == []
        assert all(found.advice for found in findings.values() if found.level is not Level.OK)
        assert ("coverage" in findings) == deployment.startswith("redis+cluster")
        if "coverage" not in findings:
            return
        assert findings["coverage"].level is Level.OK
        node, *_ = await store.commands.nodes()
        await node.execute("CONFIG", "SET", COVERAGE, "yes")
        try:
            findings = {finding.check: finding for finding in await examine(store)}
        finally:
            await node.execute("CONFIG", "SET", COVERAGE, "no")
        assert findings["coverage"].level is Level.WARN
        assert f"CONFIG SET {COVERAGE} no" in findings["coverage"].advice
