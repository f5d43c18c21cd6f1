"""`import lifecycle` is quick, loads neither product, and works beside modules of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lifecycle

ROOT = Path(__file__).parents[2]


def run(code: str, directory: Path) -> str:
    """Run code in a directory that comes first on the module path, as `python -c` does."""
    path = os.pathsep.join([str(directory), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_loaded_without_the_products(tmp_path: Path) -> None:
    for name in ("frontend", "worker"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is the user\\'s own module')\n")
    code = (
        "import sys, lifecycle\n"
        "[getattr(lifecycle, name) for name in lifecycle.__all__]\n"
        "[getattr(lifecycle.fastapi, name) for name in lifecycle.fastapi.__all__]\n"
        "print(sorted({'frontend', 'worker'} & set(sys.modules)))"
    )
    assert run(code, tmp_path) == "[]"


def test_the_import_loads_nothing_that_takes_time(tmp_path: Path) -> None:
    code = "import sys, lifecycle; print(sorted(name for name in sys.modules if name.startswith('lifecycle')))"
    assert run(code, tmp_path) == "['lifecycle', 'lifecycle.version']"


def test_its_names_are_listed_before_they_are_loaded() -> None:
    assert set(lifecycle.__all__) <= set(dir(lifecycle))
    assert sorted(lifecycle.__all__, key=str.lower) == sorted(set(lifecycle.__all__), key=str.lower)
    assert (ROOT / "lifecycle" / "py.typed").exists()


def test_the_import_takes_less_than_150_ms_of_the_processor() -> None:
    """Measure processor time, not the time on the wall, so that a busy machine changes little; the best of five."""
    bare, imported = (min(processor_secs(code) for _ in range(5)) for code in ("pass", "import lifecycle"))
    assert imported - bare < 0.15


def processor_secs(code: str) -> float:
    """Return the processor time of a Python process that runs this code."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_a_client_and_a_tracker_load_no_http_framework(tmp_path: Path) -> None:
    code = (
        "import sys, lifecycle\n"
        "lifecycle.Client, lifecycle.AsyncClient, lifecycle.Tracker, lifecycle.Worker, lifecycle.engine\n"
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'frontend', 'worker'} & set(sys.modules)))"
    )
    assert run(code, tmp_path) == "[]"
