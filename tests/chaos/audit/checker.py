"""Check a history: pure, a history in and violations out.

The rules are in one module each:

- `ends`: each request has one end, its status never goes back, and a cancel that answered 200 is never undone;
- `texts`: each answer is the text of one chain of attempts, the same for all readers, without gap or repetition;
- `codes`: 404, 409 and 503 are honest, and each call is answered;
- `counts`: each reading of the inflight count is one that a serial order of the calls allows.
"""

from __future__ import annotations

from tests.chaos.audit import codes, counts, ends, texts
from tests.chaos.audit.history import History


def check(history: History) -> list[str]:
    """Return one line for each violation."""
    found: list[str] = []
    for rid, calls in history.by_request().items():
        for rule in (ends.faults_of, texts.faults_of, codes.faults_of):
            found += [f"{rid}: {fault}" for fault in rule(history, calls)]
    return found + counts.faults_of(history)
