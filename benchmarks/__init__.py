"""What the system costs and how fast it is, on one machine, with real processes: `python -m benchmarks --help`.

- `__main__`: the command. `report`: its table and its JSON. `chart`, `tables`: docs/performance.md, from the JSON.
- `workloads`: what is measured, by name. `traffic`, `latency`, `standing`: how. `measurement`: how much, and
  what comes of it.
- `system`: what it is measured on, this one and the one in `naive/`. `engines`: what the workers run.
- `parking`: requests that nobody works on.
- `load`, `generator`: the load, made by a process of its own. `stream`, `caller`: the client's side of one connection.
- `account`: CPU time, memory, and Redis's own figures. `profile`: where the CPU time goes.
- `healing`: a command of its own, how long the cluster takes to be right again after a death.
- `core`: a command of its own, what single scripts, replicas, bodies and clients cost: `python -m benchmarks.core`.
"""
