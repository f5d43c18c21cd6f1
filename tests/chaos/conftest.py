"""What the tests of this folder share."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Healing


@pytest.fixture
def healing(request: pytest.FixtureRequest) -> Healing:
    return Healing(f"{request.node.path.name}::{request.node.originalname}")
