"""Random faults under mixed load, on each kind of deployment of Redis.

    python -m tests.chaos.soak --redis server|sentinel|cluster --seed 1 --secs 600

- `deployment`: what the three kinds have in common; `server`, `sentinel`, `redis_cluster`: one kind each.
- `fault`: what a fault is, and the bag from which the seed draws them.
- `replica_faults`, `link_faults`, `connection_faults`, `client_faults`, `memory_faults`, `refusals`,
  `answered_errors`: the faults that several kinds have.
- `run`: the cluster under load and faults; `report`: what came of it.

The load and the rules that its history is held to are those of `tests.chaos.audit`. Beside them the invariant checker
of `tests/chaos/invariants.py` reads Redis all the while.
"""
