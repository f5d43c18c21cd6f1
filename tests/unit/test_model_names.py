"""A model has one rule for its name, in calls, in the library and where a worker serves it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from frontend.endpoints.body_rules import MODEL
from lifecycle import Worker
from lifecycle.clients import arguments
from lifecycle.errors import InvalidSetting, InvalidValue
from lifecycle.fastapi.errors import ApiError


async def engine(request: Any, context: Any) -> Any:
    yield "never"


@pytest.mark.parametrize("name", ["llama-3", "org/model:tag", "mod\u00e8le", "two words", "\u00a0x", "x" * 256])
def test_what_a_call_may_name_may_be_served_and_submitted(name: str) -> None:
    MODEL.check("model", name)
    assert arguments.model(name) == name
    Worker(engine, model=name)


@pytest.mark.parametrize("name", ["", " ", "a\tb", "a\nb", "\x85", "x" * 257])
def test_what_no_call_may_name_is_refused_everywhere(name: str) -> None:
    with pytest.raises(ApiError):
        MODEL.check("model", name)
    with pytest.raises(InvalidValue):
        arguments.model(name)
    with pytest.raises(InvalidSetting, match="model"):
        Worker(engine, model=["fine", name])


@pytest.mark.parametrize("command", ["worker", "up"])
def test_a_worker_does_not_start_with_it(command: str) -> None:
    program = [sys.executable, "-c", "from lifecycle.cli.main import main; main()", command, "--engine", "echo"]
    ended = subprocess.run([*program, "--model", "a\tb"], capture_output=True, text=True, check=False, timeout=60)
    said = "lifecycle: --model 'a\\tb': pass the model as clients request it, a name of at most 256 characters"
    assert (ended.returncode, ended.stderr) == (2, said + " without control characters\n")
