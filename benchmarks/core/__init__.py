"""Measure call by call what the core costs Redis and one process: `python -m benchmarks.core --help`.

The workloads of `python -m benchmarks` load a whole system. These measurements call the store directly, so that they
can show single scripts, sizes that no short load reaches, and clusters larger than one machine can run.

- `__main__`: the command. `table`: what each measurement returns. `bench`: a Redis server and requests to measure with.
- `scripts`, `membership`, `memory`, `scrape`, `bodies`, `outputs`, `queue_depth`, `queue_scale`, `clients`, `idle`,
  `replication`: one measurement each; `__main__` lists them.
"""
