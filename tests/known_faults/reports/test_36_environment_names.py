"""Variables that others set must not stop a start, nor be taken for settings.

Kubernetes puts `LIFECYCLE_PORT=tcp://10.0.0.1:8000` into every pod beside a Service called lifecycle, and files with
variables bring line ends and spaces.
Source: vllm-project/vllm#15613, #34199 and #18209 (VLLM_PORT).
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site

SERVICE = {
    "LIFECYCLE_PORT": "tcp://10.0.0.1:8000",
    "LIFECYCLE_SERVICE_HOST": "10.0.0.1",
    "LIFECYCLE_SERVICE_PORT": "8000",
    "LIFECYCLE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "LIFECYCLE_PORT_8000_TCP_ADDR": "10.0.0.1",
    "LIFECYCLE_REDIS_PORT": "tcp://10.0.0.2:6379",
    "LIFECYCLE_HOST": "10.0.0.9",
}


@pytest.mark.parametrize("case", ["a Service's variables", "a URL with a line end", "a number with a space"])
async def test_a_frontend_starts(site: Site, case: str) -> None:
    env = {
        "a Service's variables": SERVICE,
        "a URL with a line end": {"LIFECYCLE_REDIS_URL": f"{site.settings.redis_url}\n"},
        "a number with a space": {"LIFECYCLE_LEASE_SECS": f"{site.settings.lease_secs} "},
    }[case]
    await site.another_frontend(env=env)
