"""A locale without UTF-8 (containers, cron, old servers) must not stop anything.

Today whatever loads the Lua scripts fails with a traceback, because their files are read in the locale's encoding.
Expected: everything works, and what the terminal cannot show is replaced.
Source: Textualize/rich#212, Rafficer/linux-cli-community#145, singnet/snet-cli#183, cube-js/cube#10378.
"""

from __future__ import annotations

import secrets

import pytest

from tests.known_faults.reports.kit import Site, ended

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


async def test_a_frontend_starts(site: Site) -> None:
    await site.another_frontend(env=ASCII)


@pytest.mark.parametrize(
    "argv",
    [["ps"], ["ps", "--json"], ["doctor"], ["--help"]],
    ids=" ".join,
)
async def test_a_command_works(site: Site, argv: list[str]) -> None:
    process = await site.launch(*argv, env=ASCII)
    assert (await ended(process), process.log.read_text().count("Traceback")) == (0, 0), process.log.read_text()


async def test_tail_shows_an_answer_with_an_emoji(site: Site) -> None:
    rid = f"emoji-{secrets.token_hex(4)}"
    assert (await site.ask("echo", "héllo 😀", headers={"X-Request-Id": rid})).status_code == 200
    process = await site.launch("tail", rid, env=ASCII)
    assert await ended(process) == 0, process.log.read_text()
    assert "llo" in process.log.read_text(errors="replace")
