"""A configuration with which every call of the `openai` engine fails should end its worker's start with one line.

In 0.1, a worker with an impossible proxy, certificate file or key registers and fails all that it is given, and a query
in the upstream's URL ends up in the middle of it. Expected: it works, or it ends with exit code 2 and one line.
Source: ollama/ollama-python#424, Aider-AI/aider#4038, QuantaAlpha/RepoMaster#13 (`ALL_PROXY=socks://…`).
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site, ended
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk

TEXT = "19: fine"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the proxies of whoever runs the tests."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def answers(upstream: Upstream) -> Upstream:
    upstream.play(TEXT, lambda call: [STREAM_HEAD, chunk({"content": "fine"}, "stop"), DONE])
    return upstream


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"ALL_PROXY": "socks://127.0.0.1:1/"}, id="ALL_PROXY=socks"),
        pytest.param({"SSL_CERT_FILE": "/nonexistent.pem"}, id="SSL_CERT_FILE"),
        pytest.param({"LIFECYCLE_OPENAI_API_KEY": "“sk-1”"}, id="typographic quotes"),
        pytest.param({"HTTP_PROXY": "http://127.0.0.1:1/", "NO_PROXY": "localhost,127.0.0.1,::1"}, id="NO_PROXY"),
    ],
)
async def test_a_worker_works_or_says_why_it_cannot(
    site: Site, answers: Upstream, model: str, env: dict[str, str]
) -> None:
    argv = ("worker", "--model", model, "--engine", "openai", "--upstream", answers.url)
    process = await site.launch(*argv, env=env)
    if await site.serves_or_ends(model, process):
        answer = await site.ask(model, TEXT)
        assert answer.status_code == 200, answer.text
    else:
        said = process.log.read_text().strip().splitlines()
        assert (await ended(process), len(said)) == (2, 1), said


async def test_a_query_in_the_upstreams_url_stays_a_query(site: Site, answers: Upstream, model: str) -> None:
    before = len(answers.calls)
    await site.worker(model, "openai", openai_base_url=f"{answers.url}?api-version=1")
    answer = await site.ask(model, TEXT)
    assert answer.status_code == 200, answer.text
    assert "/v1/chat/completions?api-version=1" in [call.path for call in answers.calls[before:]]
