"""A `base_url` with a slash too many makes `//v1/…`; some clients add a slash at the end.

Today `//v1/…` is 404 in words that do not help, the slash at the end is redirected to an absolute address that may be
nobody's outside, and with a client's key both, and every path that does not exist, are 403 "for operators".
Expected: the call is served (or the message names the slash), and a key changes nothing about paths that do not exist.
Source: BerriAI/litellm#8350, Vivswan/litellm-vscode-chat#53, dbeaver/dbeaver#42156; Kludex/starlette#2748,
openzim/zimit-frontend#73.
"""

from __future__ import annotations

import httpx2
import pytest

from tests.known_faults.reports.kit import Site, chat

DOUBLE, AT_THE_END = "//v1/chat/completions", "/v1/chat/completions/"
SERVED_OR_REDIRECTED = (200, 307, 308)


async def post(site: Site, path: str, key: str = "") -> httpx2.Response:
    """Make the call at one of the shared frontends: with `key` at the one that asks for keys."""
    url, headers = (site.keyed, site.bearer(key)) if key else (site.url, {})
    return await site.http.post(url + path, json=chat("echo", "hi"), headers=headers)


@pytest.mark.xfail(strict=True, reason="06: `//v1/…` is 404 and the message does not say why")
async def test_a_double_slash_is_served_or_named(site: Site) -> None:
    answer = await post(site, DOUBLE)
    named = "//" in answer.text and "base" in answer.text.lower()
    assert answer.status_code in SERVED_OR_REDIRECTED or named


async def test_a_slash_at_the_end_is_served_or_redirected(site: Site) -> None:
    assert (await post(site, AT_THE_END)).status_code in SERVED_OR_REDIRECTED


@pytest.mark.xfail(strict=True, reason="06: a slash at the end is redirected to the absolute address seen here")
async def test_a_slash_at_the_end_is_not_redirected_elsewhere(site: Site) -> None:
    answer = await post(site, AT_THE_END)
    assert answer.status_code == 200 or answer.headers["location"].startswith("/")


@pytest.mark.xfail(strict=True, reason="06: with a client's key the path with a slash too many is 403 `for operators`")
@pytest.mark.parametrize("path", [DOUBLE, AT_THE_END])
async def test_a_clients_key_changes_nothing_about_slashes(site: Site, path: str) -> None:
    assert (await post(site, path, "acme")).status_code == (await post(site, path)).status_code


@pytest.mark.xfail(strict=True, reason="06: with a client's key a path that does not exist is 403 `for operators`")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_404_for_a_client(site: Site, method: str) -> None:
    url = site.keyed + "/v1/no-such-path"
    assert (await site.http.request(method, url, headers=site.bearer("acme"))).status_code == 404
