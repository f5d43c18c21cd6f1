"""The kill tests against a weaker product, on which they must fail: `python -m tests.chaos.naive`.

Each weakening is a change to what the replicas' processes run (never to the tests, nor to the checker beside them).
Ends with status 1 when a test that should fail does not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lifecycle.store import script_loader
from tests.cluster import ROOT, WEAKENED

_PATCH = """
from lifecycle.store import script_loader

load, changes = script_loader.load, {changes!r}


def weaker(name):
    script = load(name)
    source = script.source
    for old, new in changes.get(name, ()):
        assert old in source, (name, old)
        source = source.replace(old, new)
    return script_loader._script(name, source)


script_loader.load = weaker
"""


class Weakening(NamedTuple):
    what: str
    changes: dict[str, list[tuple[str, str]]]  # of which script: text, and what stands there instead
    tests: tuple[str, ...]  # that must fail


_COUNTED_FOR_EVER = {"count_inflight": [("'-inf', secs(bound)", "'-inf', '-1'")]}
_NEVER_EXPIRED = {"expire": [("key, '-inf', secs(now), 'WITHSCORES'", "key, '-inf', '-1', 'WITHSCORES'")]}
WEAKENINGS = (
    Weakening(
        "no lease decides whose count: what was counted stays counted, as with bare INCR and DECR",
        _COUNTED_FOR_EVER,
        ("test_frontends.py::test_counts_without_a_reaper",),
    ),
    Weakening(
        "no lease ends: no replica ever expires",
        _COUNTED_FOR_EVER | _NEVER_EXPIRED,
        (
            "test_frontends.py::test_killed_with_its_clients",
            "test_frontends.py::test_what_continues_is_inherited",
            "test_frontends.py::test_a_reader_elsewhere_keeps_it_alive",
            "test_workers.py::test_killed_before_the_first_token",
            "test_workers.py::test_killed_mid_stream",
            "test_workers.py::test_killed_with_a_cancel_pending",
            "test_workers.py::test_killed_behind_a_take",
            "test_workers.py::test_a_request_that_kills_every_worker",
            "test_workers.py::test_the_only_worker_is_killed",
        ),
    ),
)


CONTROL = "test_workers.py::test_blocked_below_its_lease"
"""Passes under every weakening: what fails then fails for what was taken away, and not because nothing runs."""


def survivors(weakening: Weakening) -> list[str]:
    """Those of its tests that pass all the same. Raises SystemExit when the control fails, or nothing is changed."""
    for name, changes in weakening.changes.items():
        for old, _ in changes:
            if old not in script_loader.load(name).source:
                raise SystemExit(f"{name}.lua no longer holds {old!r}: mend this weakening")
    with tempfile.TemporaryDirectory() as folder:
        changed = _PATCH.format(changes=weakening.changes)
        (Path(folder) / "sitecustomize.py").write_text(changed)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "--tb=no", "--timeout=25"]
            + [f"tests/chaos/{test}" for test in (CONTROL, *weakening.tests)],
            cwd=ROOT,
            env=os.environ | {WEAKENED: folder},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = set(re.findall(r"^(?:FAILED|ERROR) tests/chaos/([\w.:]+)", run.stdout, re.MULTILINE))
    if f"PASSED tests/chaos/{CONTROL}" not in run.stdout:
        raise SystemExit(f"{CONTROL} does not pass:\n{run.stdout}{run.stderr}")
    return [test for test in weakening.tests if test not in failed]


def main() -> int:
    status = 0
    for weakening in WEAKENINGS:
        print(f"{weakening.what}: {len(weakening.tests)} tests …", flush=True)
        survived = survivors(weakening)
        for test in survived:
            print(f"  does not notice: {test}")
        print(f"  {len(weakening.tests) - len(survived)} failed, as they must", flush=True)
        status = status or int(bool(survived))
    return status


if __name__ == "__main__":
    sys.exit(main())
