"""A browser application on another origin asks with OPTIONS first, and sends no key with it.

Today there is no setting that allows an origin, OPTIONS is 405, and 401 where keys are asked for. Expected: the
preflight of an origin named in LIFECYCLE_CORS_ORIGINS is answered with what it may send, keys or not, and no
preflight is ever a question of keys.
Source: mudler/LocalAI#710, mostlygeek/llama-swap#42, lm-sys/RouteLLM#43, decolua/9router#3659.
"""

from __future__ import annotations

import httpx2
import pytest

from tests.keys import Keys
from tests.known_faults.reports.kit import Site, run_lifecycle

ORIGIN = "https://app.example"


async def preflight(site: Site, url: str) -> httpx2.Response:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return await site.http.options(url + "/v1/chat/completions", headers=headers)


@pytest.mark.xfail(strict=True, reason="04: there is no setting for the origins whose pages may call")
async def test_there_is_a_setting_for_allowed_origins() -> None:
    # Where it is read by a program the help is as wide as it needs to be.
    assert "--cors-origins" in await run_lifecycle("frontend", "--help", env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.mark.xfail(strict=True, reason="04: the preflight of an allowed origin is refused")
@pytest.mark.parametrize("with_keys", [False, True], ids=["without keys", "with keys"])
async def test_the_preflight_of_an_allowed_origin_is_answered(site: Site, keys: Keys, with_keys: bool) -> None:
    env = {"LIFECYCLE_CORS_ORIGINS": ORIGIN} | ({"LIFECYCLE_API_KEYS": str(keys.file)} if with_keys else {})
    answer = await preflight(site, (await site.another_frontend(env=env)).url)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type"} <= {name.strip() for name in allowed.split(",")}


@pytest.mark.xfail(strict=True, reason="04: a preflight, which carries no key, is answered 401")
async def test_the_preflight_of_another_origin_is_no_question_of_keys(site: Site) -> None:
    answer = await preflight(site, site.keyed)
    assert answer.status_code in (200, 204, 403, 405)
    assert "access-control-allow-origin" not in answer.headers
