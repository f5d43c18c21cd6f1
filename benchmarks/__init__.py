"""What the system costs and how fast it is, on one machine, with real processes: `python -m benchmarks --help`.

- `__main__`: the command. `report`: its table and its JSON.
- `workloads`, `latency`: what is measured. `measurement`: how much of it, and what comes of it.
- `system`: what it is measured on. `engines`: what its workers run. `parking`: requests that nobody works on.
- `load`: the load generator, a process of its own. `stream`, `caller`: the client's side of one connection.
- `account`: CPU time, memory, and Redis's own figures.
"""
