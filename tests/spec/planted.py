"""Faults that are planted in the specification, to see that its exploration finds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).resolve().parent
_CRASH = "two requests, a crash and a pause"
_RETURN = "one request that is given back and resumed"
_LOSS = "one request, a failover"
_LOSS_OF_TWO = "one request of two tokens, a failover"
_LOSS_OF_RESUMED = "one request that is resumed, a failover"


class SpecFault(NamedTuple):
    """A fault: in `file`, the text `before`, which is there once, becomes `after`. It is found in this `world`."""

    file: str
    before: str
    after: str
    world: str = _CRASH


FAULTS = {
    "append does not ask whose request it is": SpecFault(
        "scripts.py",
        '    if not record.runs(worker, start):\n        return record, "closed" if record.closed else "fenced"\n',
        "",
        _LOSS_OF_TWO,
    ),
    "append does not ask whether its worker is fenced": SpecFault(
        "scripts.py",
        '    if fenced:\n        return record, "fenced"\n    if not record.runs',
        "    if not record.runs",
    ),
    "append adds a repeated token again": SpecFault(
        "scripts.py", "    if number <= record.number:\n", "    if number < record.number:\n"
    ),
    "a kill does not close the stream": SpecFault(
        "scripts.py", 'closed=record.closed or mode == "kill"', "closed=record.closed"
    ),
    "a cancel is confirmed before its worker has ended it": SpecFault(
        "scripts.py", 'mode == "kill"), "pending"', 'mode == "kill"), "terminal"'
    ),
    "finish does not ask whose request it is": SpecFault(
        "scripts.py",
        '    if not record.runs(worker, start):\n        return record, "fenced"\n    if record.cancel',
        "    if record.cancel",
    ),
    "finish does not ask whether the request has ended": SpecFault(
        "scripts.py",
        '    if record.terminal:\n        return record, "already"\n    if not record.runs',
        "    if not record.terminal and not record.runs",
    ),
    "finish takes no notice of a cancel": SpecFault(
        "scripts.py", 'if record.cancel == "kill" or (record', "if (record"
    ),
    "finish does not look for a hole": SpecFault(
        "scripts.py", "if status == COMPLETED and (len(text) != last or not is_whole(text)):", "if False:", _LOSS
    ),
    "finish appends the last tokens behind a hole": SpecFault(
        "scripts.py",
        "    if record.number >= last - remainder:\n"
        "        text += tuple(Token(number, start) for number in range(record.number + 1, last + 1))\n",
        "    behind = max(record.number, last - remainder)\n"
        "    text += tuple(Token(number, start) for number in range(behind + 1, last + 1))\n",
        _LOSS_OF_TWO,
    ),
    "take does not ask whether its worker is fenced": SpecFault(
        "scripts.py",
        '    if fenced:\n        return record, "fenced"\n    if record.status == RUNNING:',
        "    if record.status == RUNNING:",
    ),
    "take starts a request that has ended": SpecFault(
        "scripts.py", '    if record.status != QUEUED:\n        return record, "drop"\n', ""
    ),
    "take moves no count": SpecFault(
        "scripts.py", "counted=record.counted and (record.counted[0], RUNNING)", "counted=record.counted"
    ),
    "an end is not counted out": SpecFault("scripts.py", "status=status, counted=None,", "status=status,"),
    "an end leaves the stream open": SpecFault(
        "scripts.py", "closed=True, ends=record.ends + 1", "ends=record.ends + 1"
    ),
    "an end is counted twice": SpecFault("scripts.py", "ends=record.ends + 1)", "ends=record.ends + 2)"),
    "a requeue moves no count": SpecFault(
        "scripts.py", "counted=record.counted and (record.counted[0], QUEUED)", "counted=record.counted"
    ),
    "a requeue forgets a pending cancel": SpecFault(
        "scripts.py", '    if record.cancel:\n        return _end(record, CANCELLED), "ended"\n', ""
    ),
    "a requeue joins the tokens of two answers": SpecFault(
        "scripts.py", "if (record.text and not record.resumable) or (", "if ("
    ),
    "a reap takes what another worker runs": SpecFault(
        "scripts.py",
        'if record.status != RUNNING or record.worker != worker:\n        return record, "nothing"',
        'if record.status != RUNNING:\n        return record, "nothing"',
    ),
    "a frontend's requests are not counted under their new owner": SpecFault(
        "scripts.py",
        "frontend=new_owner, counted=record.counted and (new_owner, record.counted[1])",
        "frontend=new_owner",
    ),
    "a reader does not look whether the stream still has what it has read": SpecFault(
        "frontends.py",
        "is_there = any(last.start.same(start) for start in record.starts)",
        "is_there = True",
        _LOSS_OF_RESUMED,
    ),
    "nobody takes a request from a fenced worker": SpecFault(
        "redis.py", "        if worker.fenced:\n            reaped", "        if False:\n            reaped"
    ),
}


def explore_with(fault: SpecFault) -> str:
    """Explore the specification with this fault, and return what is violated: '' when the fault is not found."""
    with tempfile.TemporaryDirectory(prefix="spec-") as directory:
        folder = Path(directory) / "tests" / "spec"
        shutil.copytree(_FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder.parent / "__init__.py").touch()
        path = folder / fault.file
        text = path.read_text()
        if text.count(fault.before) != 1:
            raise ValueError(f"{fault.file} has the text {fault.before!r} {text.count(fault.before)} times, not once")
        path.write_text(text.replace(fault.before, fault.after))
        ran = subprocess.run(
            [sys.executable, "-m", "tests.spec", "--only", fault.world],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": directory},
            capture_output=True,
            text=True,
            check=False,
        )
    violated = [line for line in ran.stdout.splitlines() if line.startswith("VIOLATED")]
    return violated[0] if violated else ran.stderr[-300:]
