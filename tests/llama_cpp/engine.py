"""Start llama.cpp as a process for a test, and ask it what it is doing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from tests.cluster import ROOT
from tests.waiting import block_until

START_SECS = 30.0
STOP_SECS = 10.0
_PACKAGES = ("xllamacpp", "gguf")


@dataclass
class LlamaCpp:
    """A running llama.cpp."""

    url: str

    def busy_slots(self) -> int:
        """Return how many of its slots process a request at the moment."""
        slots = httpx2.get(self.url + "/slots", trust_env=False).raise_for_status().json()
        return sum(slot["is_processing"] for slot in slots)


def need_packages() -> None:
    """Skip the test if the packages of the extra `engines` are not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install -e '.[engines]'")


@contextmanager
def llama_cpp(directory: Path, *options: str) -> Iterator[LlamaCpp]:
    """Write the model, and run the server with `options` in a process of its own; its log is in `directory`."""
    model, log, port = directory / "tiny.gguf", directory / "llama.log", free_port()
    subprocess.run([sys.executable, "-m", "tests.llama_cpp.tiny_model", str(model)], cwd=ROOT, check=True, timeout=60)
    command = [sys.executable, "-m", "tests.llama_cpp.server", str(port), str(model), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    engine = LlamaCpp(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx2.get(engine.url + "/health", trust_env=False).is_success
        except httpx2.TransportError:
            return False

    try:
        block_until(ready, "a llama.cpp that is ready", START_SECS)
        yield engine
    finally:
        process.terminate()
        process.wait(STOP_SECS)
