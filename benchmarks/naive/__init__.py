"""What a competent developer builds in an afternoon from the same parts, to compare with.

FastAPI, uvicorn (uvloop, httptools), redis.asyncio with hiredis, orjson; the same engine, the same Redis.

    python -m benchmarks.naive.worker REDIS_URL
    python -m benchmarks.naive.frontend REDIS_URL PORT

- A frontend XADDs the request to the stream `jobs` and INCRs `inflight`; a worker takes it with XREADGROUP.
- The worker XADDs each token to `tokens:<id>` as the engine yields it, then an entry that says how it ended.
- The frontend has one blocked XREAD for each request and turns entries into server-sent events; what one XREAD brings
  goes out in one write. It DECRs `inflight` in the end.
- A cancel, and a client that has gone, is a message on the channel `cancel`, to which every worker listens.
- Streams expire; connection pools are as large as they need to be, nothing waits for a connection.

It is written to be as fast as this design allows. What it does not do: notice that a replica has died, resume, keep its
count right after a crash, refuse a write that comes twice or too late, deliver a cancel that nobody heard.
"""
