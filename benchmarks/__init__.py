"""Measure the system's cost and speed on one machine with real processes: `python -m benchmarks --help`.

- `__main__`: the command. `report`: its table and its JSON. `chart`, `tables`: docs/performance.md, from the JSON.
- `workloads`: all workloads, by name. `traffic`, `latency`, `standing`: how each is measured. `measurement`: the size
  of a workload, and its results.
- `system`: the measured system, and the base class of the one in `naive/`. `engines`: the engines of the workers.
- `parking`: requests that wait in the queue without a worker.
- `load`, `generator`: the load, made by a process of its own. `stream`, `caller`: the client's side of one connection.
- `account`: CPU time, memory, and Redis's own figures. `profile`: where the CPU time goes.
- `healing`: a command of its own, how long the cluster takes to be right again after a death.
- `fairness`: a command of its own, how owners of different weights share a model's tokens.
- `waits`: a command of its own, how estimates of waits compare with the waits.
- `track`: a command of its own, what `track` costs an application beside a plain StreamingResponse.
- `membership`: a command of its own, what up to 2,000 idle replicas cost Redis.
- `primaries`: a command of its own, what the same requests cost one Redis server and the primaries of a Cluster.
- `core`: a command of its own, what single scripts, replicas, bodies and clients cost: `python -m benchmarks.core`.
"""
