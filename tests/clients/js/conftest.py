"""The fixtures that the tests of the JavaScript client share."""

from __future__ import annotations

import pytest

from tests.clients.js.package import Package, need_node, pack


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    need_node()
    return pack(tmp_path_factory.mktemp("js"))
