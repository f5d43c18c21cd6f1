"""The worlds that are explored: each has two frontends and two workers."""

from __future__ import annotations

from tests.spec.life import Size

QUICK = {
    "three requests, a crash": Size(pauses=0),
    "two requests, a crash and a pause": Size(requests=2),
    "one request that is given back and resumed": Size(
        requests=1, tokens=2, resumable=True, returns=2, pauses=0, reads=True
    ),
    "one request, a failover": Size(requests=1, crashes=0, pauses=0, failovers=1, reads=True),
    "one request of two tokens, a failover": Size(
        requests=1, tokens=2, crashes=0, pauses=0, failovers=1, lost_writes=3, fails=True
    ),
    "one request that is resumed, a failover": Size(
        requests=1,
        tokens=2,
        crashes=0,
        pauses=0,
        failovers=1,
        lost_writes=3,
        resumable=True,
        returns=1,
        cancels=0,
        reads=True,
    ),
    "two requests, a failover": Size(requests=2, crashes=0, pauses=0, cancels=0, failovers=1, lost_writes=3),
}
"""Name the worlds that the suite explores."""

FULL = QUICK | {
    "three requests, a crash and a pause": Size(),
    "one request, a failover and a crash": Size(requests=1, tokens=2, pauses=0, failovers=1),
    "one request, a failover and a pause": Size(requests=1, crashes=0, failovers=1, lost_writes=3, reads=True),
}
"""Name the worlds that `make spec` explores."""
