"""Tests that share a cluster of processes run in one of the processes of pytest-xdist."""

from __future__ import annotations

import pytest

from tests.distribution import DEPLOYMENTS, group_of

SHARED = ("package", "module")


def needs(item: pytest.Item) -> set[tuple[str, str]]:
    """Return each fixture of a module or package that the test uses, with where it is defined and what for."""
    info = getattr(item, "_fixtureinfo", None)
    found = set()
    for name, definitions in (info.name2fixturedefs if info else {}).items():
        if definitions[-1].scope in SHARED and not name.startswith("_"):  # pytest-asyncio has such ones
            place = definitions[-1].baseid if definitions[-1].scope == "package" else item.nodeid.partition("::")[0]
            found.add((name, place))
    return found


def test_tests_that_share_a_fixture_are_in_one_group(request: pytest.FixtureRequest) -> None:
    """For the tests that this run has collected; the whole suite has all of them."""
    groups: dict[tuple[str, str, str], set[str]] = {}
    for item in request.session.items:
        deployment = next((name for name in DEPLOYMENTS if name in item.name), "")
        for name, place in needs(item):
            groups.setdefault((name, place, deployment), set()).add(group_of(item.nodeid))
    assert not {key: found for key, found in groups.items() if len(found) > 1}


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_encoding.py::test_it[a::b]", "tests/unit/test_encoding.py"),
        ("tests/conformance/test_streams.py::test_it[Redis Cluster-x]", "conformance, Redis Cluster"),
        ("tests/integration/responses/test_owners.py::test_it", "tests/integration/responses/"),
    ],
)
def test_a_group_is_a_file_a_folder_or_a_deployment(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group
