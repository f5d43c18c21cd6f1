"""HEAD must answer wherever GET does, because load balancers, uptime monitors and `curl -I` probe with it.

Today every HEAD is 405. Expected: the status of GET and no body.
Source: fastapi/fastapi#1773, punkpeye/fastmcp#275, saml7n/parbaked#564; RFC 9110, section 9.1.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site


@pytest.mark.xfail(strict=True, reason="03: HEAD is answered 405 where GET is 200")
@pytest.mark.parametrize("path", ["/live", "/ready", "/health", "/", "/v1/models", "/metrics"])
async def test_head_answers_where_get_does(site: Site, path: str) -> None:
    assert (await site.http.get(site.url + path)).status_code == 200
    answer = await site.http.head(site.url + path)
    assert (answer.status_code, answer.content) == (200, b"")
