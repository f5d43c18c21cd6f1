"""Specify what a request may live through, as a small model that is explored exhaustively.

- `record` is what Redis has of one request, and `scripts` has the transitions of the Lua scripts, one function each.
- `life` is one request with all that replicas and its client know of it, and what all requests share.
- `workers`, `frontends` and `redis` say which steps are possible: what a process does, may do too late, or never does
  because it has died; and what happens by itself, such as that Redis loses its last writes.
- `invariants` says what must hold, `explore` visits every state, and `symmetry` says which are the same.
- `sizes` has the worlds that are explored, and `planted` has faults that must be found in them.
- `replay` holds each script that the simulation executes to `scripts`.

`python -m tests.spec --help` explores it.
"""
