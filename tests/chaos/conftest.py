"""The fixtures that the tests of this folder share."""

from __future__ import annotations

import pytest

from lifecycle.settings import Settings
from tests.chaos.faults import Healing
from tests.conftest import MakeSettings


@pytest.fixture
def healing(request: pytest.FixtureRequest) -> Healing:
    return Healing(f"{request.node.path.name}::{request.node.originalname}")


@pytest.fixture
def calm(make_settings: MakeSettings) -> Settings:
    """Return settings with long leases, so that a busy machine does not let one expire."""
    return make_settings(lease_secs=8.0)


@pytest.fixture
def steady(make_settings: MakeSettings) -> Settings:
    """Return settings for deaths that other replicas survive on a busy machine."""
    return make_settings(lease_secs=2.0)
