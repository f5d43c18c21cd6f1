"""Plant faults in a copy of the product, one at a time, and say in how many seeds the simulation finds each.

    python -m tests.simulation.planted --seeds 200

A simulation proves nothing about itself: a fault that it does not find says what it lacks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("lifecycle", "frontend", "worker", "tests", "pyproject.toml")


class Planted(NamedTuple):
    """A fault: in `file`, the text `before`, which is there once, becomes `after`."""

    what: str
    file: str
    before: str
    after: str


PLANTED = (
    Planted(
        "append does not ask whether the request is still its worker's",
        "lifecycle/store/lua/append.lua",
        "  if run and nonce then\n",
        "  nonce = nonce or mark\n  if true then\n",
    ),
    Planted(
        "append does not compare the nonce of the start",
        "lifecycle/store/lua/append.lua",
        "if nonce ~= '' and nonce ~= held then return nil, 'fenced' end",
        "",
    ),
    Planted(
        "finish ends a request without looking whether it runs there",
        "lifecycle/store/lua/finish.lua",
        "if not record or ended or another or record.status ~= 'running' or record.worker ~= worker\n"
        "  or record.attempt ~= attempt then",
        "if not record then",
    ),
    Planted(
        "a cancel is answered as confirmed before its worker has ended it",
        "lifecycle/store/lua/include/cancelling.lua",
        "  publish_cancellation(record.worker, rid, mode, reason)\n  return 'pending', record",
        "  publish_cancellation(record.worker, rid, mode, reason)\n  return 'terminal', record",
    ),
    Planted(
        "a kill does not close the stream",
        "lifecycle/store/lua/include/cancelling.lua",
        "if not closed then close_stream(rid, ending) end",
        "",
    ),
    Planted(
        "the end is told to readers before it is known whether the worker may report it",
        "lifecycle/store/lua/finish.lua",
        "local now = clock(shift)\nif input_tokens",
        "local now = clock(shift)\npush_event(rid, END_ID,\n"
        "  cjson.encode(outcome_of(status, error_type, message, finish_reason, tonumber(last))))\nif input_tokens",
    ),
    Planted(
        "an expiry does not set the fenced mark",
        "lifecycle/store/lua/expire.lua",
        "redis.call('SET', P .. 'fenced:' .. replica, '1', 'EX', DAY_SECS)",
        "",
    ),
    Planted(
        "a take does not ask whether the request is still queued",
        "lifecycle/store/lua/take.lua",
        "  if request.status ~= 'queued' then",
        "  if not request.status then",
    ),
    Planted(
        "a request that starts stays in its flow",
        "lifecycle/store/lua/take.lua",
        "  dequeue(model, priority, owner, rid, #body)\n",
        "",
    ),
    Planted(
        "a repeated take takes more",
        "lifecycle/store/lua/take.lua",
        "if tonumber(number) == last_number then\n",
        "if false then\n",
    ),
    Planted(
        "an end leaves the request in its queue",
        "lifecycle/store/lua/include/terminal.lua",
        "  if was == 'queued' then leave_queue(record) end\n",
        "",
    ),
    Planted(
        "a requeue forgets the counts",
        "lifecycle/store/lua/include/retrying.lua",
        "  count_moves(record.frontend, rid, 'running', 'queued')\n",
        "",
    ),
    Planted(
        "an admission is repeated under another nonce",
        "lifecycle/store/lua/admit.lua",
        "if known[1] == nonce then return {'admitted', known[2]} end",
        "",
    ),
    Planted(
        "a pending cancel is not repeated by the heartbeat",
        "lifecycle/store/lua/reconcile_shard.lua",
        "'pending_cancellations:' .. replica, limit)) do",
        "'nothing:' .. replica, limit)) do",
    ),
    Planted(
        "a reader does not look for a gap",
        "lifecycle/tokens/reader.py",
        "            return item.first > self.number + 1\n",
        "            return False\n",
    ),
)


def plant(planted: Planted, root: Path) -> None:
    """Change a copy of the product. Raises ValueError when the text to be changed is not there exactly once."""
    path = root / planted.file
    text = path.read_text()
    if text.count(planted.before) != 1:
        raise ValueError(f"{planted.file} has the text {planted.before!r} {text.count(planted.before)} times, not once")
    path.write_text(text.replace(planted.before, planted.after))


def found_in(planted: Planted, seeds: int, processes: int) -> tuple[int, str]:
    """Return in how many seeds the fault is found, and the first violation."""
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        root = Path(directory)
        for name in _COPIED:
            source = _ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
            else:
                shutil.copy(source, root / name)
        plant(planted, root)
        command = [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--processes", str(processes)]
        ran = subprocess.run(
            command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
        )
    found = re.findall(r"^seed \d+: .*", ran.stdout, re.MULTILINE)
    return len(found), found[0] if found else ran.stderr[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose description contains this")
    given = parser.parse_args()
    missed = 0
    for planted in PLANTED:
        if given.only in planted.what:
            count, first = found_in(planted, given.seeds, given.processes)
            missed += not count
            print(f"{count:4} of {given.seeds}  {planted.what}\n              {first:.200}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
