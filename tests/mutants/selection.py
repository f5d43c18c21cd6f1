"""Say which tests can see a fault: those of what its file does, the likeliest first."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FAST = {
    "append.lua": "appending lost_starts whole_answers resuming starting races transitions orphans token_counts",
    "finish.lua": "transitions races lost_starts whole_answers starting counts counting resuming",
    "include/replies.lua": "transitions races",
    "fail.lua": "transitions races starting priority",
    "include/terminal.lua": "transitions races counts starting queue_order resuming timeline",
    "include/settlement.lua": "transitions races counts starting",
    "include/cancellation.lua": "transitions races",
    "include/cancelling.lua": "transitions races timeline starting",
    "include/retrying.lua": "starting transitions races drains lost_replicas queue_order",
    "expire.lua": "membership lost_replicas starting races unknown_replicas",
    "reap.lua": "transitions races lost_replicas membership leaving_frontend starting",
    "reconcile_shard.lua": "membership transitions races unknown_replicas starting",
    "include/queue.lua": "queue_order queued_bytes queue_shares starting",
    "include/cost.lua": "queue_costs queue_shares queue_order",
    "merged_calls.py": "merged_calls",
    "roster.lua": "membership",
    "shard_lease.py": "membership",
    "reader_reports.py": "readers",
    "tracking/membership.py": "readers resuming",
    "claim_children.lua": "parent_checks",
    "parent_checks.py": "parent_checks local_starts",
    "admit.lua": "starting transitions idempotent_ids races membership queue_order queued_bytes",
    "take.lua": "starting queue_order transitions queue_shares races resuming counts priority",
    "include/front.lua": "queue_order queue_costs queue_shares priority starting",
    "include/scheduler.lua": "queue_order queue_costs queue_shares queue_waits",
    "include/start.lua": "starting transitions queue_order races resuming counts limit_time",
    "running.py": "remembered_ends lost_starts",
    "remembered_ends.py": "remembered_ends lost_starts",
    "owned_requests.py": "leaving_frontend monitor push_dispatcher",
    "attempt.py": "remembered_ends lost_starts interruption",
    "reader.py": "reader lost_starts readers resuming",
    "read_start.py": "lost_starts reader resuming",
}
"""Name modules of the fast tier by the end of a file's path."""

_SLOW = {
    "finish.lua": "tests/integration/test_merged_calls.py",
    "include/terminal.lua": "tests/integration/test_merged_calls.py",
    "include/replies.lua": "tests/integration/test_merged_calls.py",
    "include/settlement.lua": "tests/integration/test_merged_calls.py",
    "merged_calls.py": "tests/integration/test_merged_calls.py",
    "running.py": "tests/integration/test_lost_writes.py",
    "owned_requests.py": "tests/integration/test_lost_writes.py",
    "attempt.py": "tests/integration/test_attempt.py",
    "parent_checks.py": "tests/integration/test_request_trees.py",
    "claim_children.lua": "tests/integration/test_request_trees.py",
    "shard_lease.py": "tests/integration/test_lease_renewal.py",
    "reader_reports.py": "tests/integration/test_readers.py",
    "tracking/membership.py": "tests/integration/test_lost_writes.py tests/integration/test_lost_data.py",
}
"""Name what is run as well, where the fast tier has no test of the whole."""

_MACHINE = "tests/unit/test_lifecycle_machine.py"  # every script, against a reference model


def fast(mutant: Mutant) -> list[str]:
    """Return the files of the fast tier that can see a fault. Raises ValueError when its file has none."""
    found = next((names for end, names in _FAST.items() if mutant.file.endswith(f"/{end}")), "")
    if not found:
        raise ValueError(f"tests/mutants/selection.py names no tests for {mutant.file}")
    return [f"tests/unit/test_{name}.py" for name in found.split()]


def slow(mutant: Mutant) -> list[str]:
    """Return the files that are run when the fast tier has found nothing."""
    found = next((names for end, names in _SLOW.items() if mutant.file.endswith(f"/{end}")), "")
    return [*found.split(), *([_MACHINE] if mutant.file.endswith(".lua") else [])]
