"""The folder's own frontends, workers and scripted upstream: the fixtures of the reports' folder, started once more."""

from __future__ import annotations

from tests.known_faults.reports.conftest import keys, model, pytest_configure, shared, site, upstream

__all__ = ["keys", "model", "pytest_configure", "shared", "site", "upstream"]
