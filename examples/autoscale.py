"""Start and drain workers of one model by its queue: a small autoscaler.

    LIFECYCLE_REDIS_URL=redis://localhost python autoscale.py MODEL ENGINE

With LIFECYCLE_QUEUE_WITHOUT_WORKERS=true it scales from zero. A worker that is drained finishes what it runs.
"""

import subprocess
import sys
import time

import lifecycle

LONGEST_QUEUE = 4  # requests that may wait for each worker before another one is started
LONGEST_WAIT_SECS = 10.0  # for the oldest of them
MOST_WORKERS = 4
IDLE_SECS = 30.0  # without anything inflight, after which workers are drained


def wanted(queues: list[lifecycle.ModelQueue], model: str, have: int) -> int:
    """Return how many workers of a model there should be; `have` is how many there are."""
    for queue in queues:
        if queue.model == model and (queue.queued > LONGEST_QUEUE * have or queue.oldest_secs > LONGEST_WAIT_SECS):
            return min(have + 1, MOST_WORKERS)
    return have


def main(model: str, engine: str, idle_secs: float = IDLE_SECS) -> None:
    """Scale until interrupted."""
    command = [sys.executable, "-m", "lifecycle.cli.main", "worker", "--model", model, "--engine", engine]
    workers: list[subprocess.Popen[bytes]] = []
    busy_at = time.monotonic()
    try:
        with lifecycle.Client() as client:
            while True:
                workers = [worker for worker in workers if worker.poll() is None]
                try:
                    queues, inflight = client.queue(), client.inflight(model=model)
                except lifecycle.Unavailable as failure:  # no answer is not "no load": change nothing
                    print(failure.message, flush=True)
                else:
                    busy_at = time.monotonic() if inflight.total else busy_at
                    if len(workers) < wanted(queues, model, len(workers)):
                        workers.append(subprocess.Popen(command))
                        print(f"{inflight.total} inflight: {len(workers)} workers", flush=True)
                    if workers and time.monotonic() - busy_at > idle_secs:
                        print("idle: no worker", flush=True)
                        for worker in workers:
                            worker.terminate()  # SIGTERM drains it
                        busy_at = time.monotonic()
                time.sleep(1.0)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
