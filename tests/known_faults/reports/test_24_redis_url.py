"""Redis URLs as people have them: a password that is not escaped, or an option copied from another client.

Each must stop the start with exit code 2 and one line that names the setting, says what to do and shows nothing of
the password. Today the message shows the part of the password before a `#` or `/`, an unknown option is told as a
Redis that cannot be reached, with a traceback, and a database that is no number is taken for 0.
The option `protocol=3` is tested with the core's faults (r26).
Source: celery/celery#7864, #3327 and #3132, nautobot/nautobot#8702.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site, ended

SECRET = "topse"


async def refusal(site: Site, url: str) -> str:
    """Return the one line with which `lifecycle ps` refuses the URL; fail when it does something else."""
    process = await site.launch("ps", env={"LIFECYCLE_REDIS_URL": url})
    code, said = await ended(process), process.log.read_text().strip()
    assert (code, len(said.splitlines())) == (2, 1), (code, said)
    assert "REDIS_URL" in said
    return said


@pytest.mark.parametrize(
    ("password", "escaped"), [("topse#cret", "%23"), ("p@topse/cret", "%2F")], ids=["number sign", "slash"]
)
async def test_a_password_that_is_not_escaped_is_refused_and_not_shown(site: Site, password: str, escaped: str) -> None:
    said = await refusal(site, f"redis://:{password}@127.0.0.1:1/0")
    assert SECRET not in said
    assert escaped in said.upper()


async def test_an_option_of_another_client_is_refused(site: Site) -> None:
    assert "ssl_cert_reqs" in await refusal(site, "redis://127.0.0.1:1/0?ssl_cert_reqs=none")


async def test_a_database_that_is_no_number_is_refused(site: Site) -> None:
    assert "abc" in await refusal(site, "redis://127.0.0.1:1/abc")
