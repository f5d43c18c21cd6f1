"""The plan of one simulated history: who is there, what clients do, and what breaks when. A seed gives one plan.

All times are seconds of virtual time since the load began. A plan can be written down and cut shorter.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.simulation.mixture import mixed

LOAD_SECS = 8.0
FAULT_KINDS = (
    "crash",  # SIGKILL, after so many further turns of the process
    "pause",  # SIGSTOP, then SIGCONT
    "drain",  # SIGTERM
    "cut",  # no direction of the process's link works
    "no replies",  # the server hears the process, and not the other way round
    "unheard",  # the process hears the server, and not the other way round
    "slow link",
    "reset",  # every connection of the process
    "lost reply",  # a script is executed, and its connection closed before the reply
    "no reply",  # a script is executed, and its connection leads nowhere from then on
    "vanish",  # the connections lead nowhere, and nobody is told
    "hang",  # the server is stopped for a while
    "refusal",  # the server answers every write with an error
    "failover",  # the server is replaced by one that lacks the last writes
    "restart",  # the server is started anew with all it had
    "flush",  # the server loses everything
    "server clock",  # a step of its clock
    "wall clock",  # a step of a process's clock
    "late",  # the process is stopped just before a script of it is sent, for longer than its lease
)
SPLIT = "split"  # a failover after which the old server goes on with its connections, perhaps after a hang
OF_A_PROCESS = frozenset(FAULT_KINDS[:11]) | {"wall clock", "late"}
LOSES_DATA = frozenset({"failover", "flush", SPLIT})
_WEIGHTS = (8, 5, 4, 4, 3, 2, 2, 4, 8, 5, 2, 2, 2, 14, 2, 0.5, 0.5, 0.5, 8)


_FRONTENDS_SCRIPTS = ("admit", "admit", "cancel", "attach", "disconnect", "heartbeat", "reconcile_shard", "reap")
_WORKERS_SCRIPTS = ("take", "take", "append", "finish", "finish", "requeue", "heartbeat", "reconcile_shard", "reap")
_LOST_SCRIPTS = ("", "take", "take", "append", "finish", "finish", "cancel", "requeue", "reap")


class Fault(NamedTuple):
    """One fault. `target` is a replica's slot, such as `frontend-1`; `amount` depends on the kind.

    `script` is the one whose next reply is lost, that is late, or that is the first one which a failover or a split
    loses; '' for one that begins at once.
    """

    at: float
    kind: str
    target: str = ""
    secs: float = 0.0
    amount: int = 0
    script: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.script, self.target))) + (
            f" for {self.secs:.2f} s" if self.secs else ""
        )


class Visit(NamedTuple):
    """Something that a client does about its request later on."""

    at: float  # after the request
    what: str  # read, read on, kill, stop, status, repeat
    frontend: int
    tokens: int = 0  # after so many a reader leaves; 0 reads to the end
    wait_secs: float = 0.0  # of a cancel


class Request(NamedTuple):
    """One request, and what its client does."""

    rid: str
    at: float
    frontend: int
    model: str
    stream: bool
    words: int
    pause_secs: float
    leave_after: int = -1  # tokens, after which the client leaves; -1: it stays
    on_disconnect: str = "cancel"
    grace_secs: float = 0.0
    key: str = ""  # an idempotency key
    owner: str = ""
    weight: float = 1.0  # of its owner
    priority: int = 0
    parent: str = ""  # the id of the request that has started it
    inflight_limit: int = 0
    queue_secs: float = 0.0
    first_token_secs: float = 0.0
    deadline_secs: float = 0.0
    visits: tuple[Visit, ...] = ()


class Team(NamedTuple):
    """Workers that serve one model."""

    model: str
    resumable: bool
    workers: int
    concurrency: int


@dataclass(frozen=True)
class Plan:
    """One history to be simulated."""

    seed: int
    frontends: int
    teams: tuple[Team, ...]
    shards: int
    delay_secs: float  # of one part in one direction
    max_attempts: int
    requests: tuple[Request, ...]
    faults: tuple[Fault, ...]
    preempt: bool = False

    @property
    def slots(self) -> list[str]:
        """Return the names of the replicas' places."""
        workers = sum(team.workers for team in self.teams)
        return [f"frontend-{n}" for n in range(self.frontends)] + [f"worker-{n}" for n in range(workers)]

    @property
    def loses_data(self) -> bool:
        return any(fault.kind in LOSES_DATA for fault in self.faults)


def plan_of(seed: int) -> Plan:
    """Draw the plan of a seed."""
    dice = random.Random(f"plan {seed}")
    frontends = dice.choice((2, 2, 3))
    concurrency = dice.choice((1, 1, 2, 4))
    teams = dice.choice(
        (
            (Team("plain", False, 2, concurrency),),
            (Team("steady", True, 2, concurrency),),
            (Team("plain", False, 1, concurrency), Team("steady", True, 2, concurrency)),
            (Team("plain", False, 2, concurrency), Team("steady", True, 1, concurrency)),
        )
    )
    plan = Plan(
        seed,
        frontends,
        teams,
        shards=dice.choice((1, 1, 2)),
        delay_secs=dice.choice((0.0002, 0.001, 0.01)),
        max_attempts=dice.choice((2, 3)),
        requests=tuple(_request(dice, number, frontends, teams) for number in range(dice.randint(12, 30))),
        faults=(),
    )
    kinds = _some_kinds(dice)
    faults = sorted(_fault(dice, kinds, plan.slots) for _ in range(dice.choice((1, 2, 3, 4, 5, 7))))
    requests, is_calm = mixed(plan.requests, seed)
    plan = Plan(**vars(plan) | {"requests": requests, "faults": () if is_calm else tuple(faults)})
    return _with_priorities(_with_splits(plan))


def _with_splits(plan: Plan) -> Plan:
    """Let the old server go on after some of the failovers."""
    dice = random.Random(f"splits {plan.seed}")
    faults = [
        fault._replace(kind=SPLIT) if fault.kind == "failover" and dice.random() < 0.3 else fault
        for fault in plan.faults
    ]
    return replace(plan, faults=tuple(faults))


def _with_priorities(plan: Plan) -> Plan:
    """Let half of the plans whose workers can resume have several priorities, and workers that preempt."""
    dice = random.Random(f"priorities {plan.seed}")
    if dice.random() < 0.5 or not any(team.resumable for team in plan.teams):
        return plan
    requests = (request._replace(priority=dice.choice((-3, 0, 0, 5, 5))) for request in plan.requests)
    return replace(plan, preempt=True, requests=tuple(requests))


def _request(dice: random.Random, number: int, frontends: int, teams: tuple[Team, ...]) -> Request:
    words = dice.choice((1, 3, 6, 12, 20))
    stream = dice.random() < 0.75
    request = Request(
        rid=f"r{number}",
        at=dice.uniform(0.0, LOAD_SECS),
        frontend=dice.randrange(frontends),
        model=dice.choice(teams).model,
        stream=stream,
        words=words,
        pause_secs=dice.choice((0.0, 0.02, 0.1, 0.3, 2.0 if words <= 3 else 0.3)),
    )
    length_secs = words * request.pause_secs + 0.2
    changes: dict[str, object] = {}
    if dice.random() < 0.35:
        changes["leave_after"] = dice.randint(0, words)
    if dice.random() < 0.3:
        changes["on_disconnect"] = "continue"
    if dice.random() < 0.3:
        changes["grace_secs"] = dice.choice((0.5, 2.0, 6.0))
    if dice.random() < 0.2:
        changes["key"] = f"key-{number}"
    if dice.random() < 0.15:
        changes |= {"owner": "ann", "inflight_limit": 3}
    if dice.random() < 0.15:
        changes[dice.choice(("queue_secs", "first_token_secs", "deadline_secs"))] = dice.uniform(0.2, 4.0)
    whats = ["read", "read on", "read on", "kill", "stop", "status"] + ["repeat"] * (2 if changes.get("key") else 0)
    changes["visits"] = tuple(
        sorted(
            Visit(
                at=dice.uniform(0.0, 1.5 * length_secs),
                what=dice.choice(whats),
                frontend=dice.randrange(frontends),
                tokens=dice.choice((0, 0, 0, dice.randint(1, words))),
                wait_secs=dice.choice((0.0, 3.0)),
            )
            for _ in range(dice.choice((0, 1, 1, 2, 3)))
        )
    )
    return request._replace(**changes)  # type: ignore[arg-type]


def _some_kinds(dice: random.Random) -> list[str]:
    """Draw the kinds that this plan has: histories with few kinds of faults reach what a mixture of all does not."""
    return dice.choices(FAULT_KINDS, _WEIGHTS, k=dice.choice((1, 2, 3, 5, 8)))


def _fault(dice: random.Random, kinds: list[str], slots: list[str]) -> Fault:
    kind = dice.choice(kinds)
    target = dice.choice(slots) if kind in OF_A_PROCESS else ""
    script = dice.choice(_FRONTENDS_SCRIPTS if target.startswith("frontend") else _WORKERS_SCRIPTS)
    lost = dice.choice(_LOST_SCRIPTS)
    return Fault(
        at=dice.uniform(0.0, LOAD_SECS),
        kind=kind,
        target=target,
        secs=dice.choice((0.1, 0.5, 1.5, 3.0, 6.0, 10.0)) * dice.uniform(0.8, 1.2),
        amount=dice.choice((0, 1, 3, 10, 30, 100)),
        script=script if kind in ("lost reply", "no reply", "late") else lost if kind == "failover" else "",
    )
