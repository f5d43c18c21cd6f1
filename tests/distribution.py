"""Which tests run in the same process of pytest-xdist, and in which order the processes take them.

The groups of pytest-xdist itself are not used: its release 3.8 hands them over in the node ids, which pytest 9.2 no
longer lets it change, so that each test would be a group of its own and every shared cluster would run in each process.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

DEPLOYMENTS = ("one server", "Redis Cluster")
_TOGETHER = (
    "tests/chaos/test_links.py",
    "tests/integration/messages/",
    "tests/integration/responses/",
    "tests/known_faults/edge/",
    "tests/known_faults/reports/",
)
_ALONE = ("tests/chaos/", "tests/simulation/", "tests/spec/")  # each test has processes of its own
# What takes long begins early, so that no process is alone with it at the end; first what computes, then what waits.
_ORDER = (
    "tests/integration/test_dependency_versions.py",
    "tests/simulation/",
    "tests/unit/test_style.py",
    "tests/spec/",
    "tests/conformance/",
    "tests/known_faults/",
    "tests/chaos/",
    "tests/integration/",
    "tests/clients/",
)


def group_of(nodeid: str) -> str:
    """Return the name of the group: tests that share processes or servers run in one process, one after the other."""
    file, _, test = nodeid.partition("::")
    if file.startswith("tests/conformance/"):
        return next((f"conformance, {name}" for name in DEPLOYMENTS if name in test), file)
    if together := next((start for start in _TOGETHER if file.startswith(start)), None):
        return together
    return nodeid if file.startswith(_ALONE) else file


def place_of(item: pytest.Item) -> int:
    """Return the place of the test's folder in the order of the whole suite."""
    return next((place for place, start in enumerate(_ORDER) if item.nodeid.startswith(start)), len(_ORDER))


class Distribution(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each process the next group, in the order of the collection."""

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False  # else groups of few tests, which are the slow ones, would be last
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
