"""Provide a simple system from the same parts, as a developer would build it in an afternoon, for comparison.

FastAPI, uvicorn (uvloop, httptools), redis.asyncio with hiredis, orjson; the same engine, the same Redis.

    python -m benchmarks.naive.worker REDIS_URL
    python -m benchmarks.naive.frontend REDIS_URL PORT

- A frontend XADDs the request to the stream `jobs` and INCRs `inflight`; a worker takes it with XREADGROUP.
- The worker XADDs each token to `tokens:<id>` as the engine yields it, then an entry that says how it ended.
- The frontend has one blocked XREAD for each request and turns entries into server-sent events; what one XREAD brings
  goes out in one write. It DECRs `inflight` in the end.
- A cancel, and a client that has gone, is a message on the channel `cancel`, to which every worker listens.
- Streams expire; connection pools are as large as they need to be, nothing waits for a connection.

It is written to be as fast as this design allows. It does not notice that a replica has died, does not resume, does not
keep its count right after a crash, accepts a write that comes twice or too late, and loses a cancel without a listener.
"""
