"""The usual mistakes of a first engine must be told where they can be seen, in words that name the mistake.

A plain generator instead of an async one either works or stops the start with one line, and so does a function that
returns an engine. A wrong kind of value is named when it is yielded. A dict is a chunk of the endpoint's own format and
must reach the client; today it is refused.
Source: Eigenwise/atomic-agents#71, ray-project/ray#39823, bentoml/BentoML#4083.
"""

from __future__ import annotations

import pytest

from tests.known_faults.reports.kit import Site, ended

ENGINES = """
def plain(request, context):
    yield "hello"

class Model:
    def __call__(self, request, context):
        yield "hello"

model = Model()

def factory():
    async def generate(request, context):
        yield "hello"
    return generate

async def yields(request, context):
    what = request["messages"][-1]["content"]
    yield {"none": None, "bytes": b"hello", "chunk": {"choices": [{"index": 0, "delta": {"content": "hello"}}]}}[what]
"""


@pytest.mark.parametrize(
    "name",
    [pytest.param("plain"), pytest.param("model"), pytest.param("factory")],
)
async def test_an_engine_of_the_wrong_kind_works_or_stops_the_start(site: Site, model: str, name: str) -> None:
    (site.directory / "mistakes.py").write_text(ENGINES)
    process = await site.launch("worker", "--model", model, "--engine", f"mistakes:{name}")
    if await site.serves_or_ends(model, process):
        answer = await site.ask(model)
        assert answer.status_code == 200, answer.text
    else:
        assert await ended(process) == 2
        said = process.log.read_text().strip().splitlines()
        assert [line for line in said if not line.startswith("{")] == said[-1:], said


async def test_a_value_of_the_wrong_kind_is_named(site: Site, model: str) -> None:
    (site.directory / "mistakes.py").write_text(ENGINES)
    await site.worker(model, "mistakes:yields")
    for text, word in (("none", "None"), ("bytes", "bytes")):
        error = (await site.ask(model, text)).json()["error"]
        assert "yielded" in error["message"]
        assert word in error["message"]


async def test_a_chunk_reaches_the_client(site: Site, model: str) -> None:
    (site.directory / "mistakes.py").write_text(ENGINES)
    await site.worker(model, "mistakes:yields")
    answer = await site.ask(model, "chunk")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
