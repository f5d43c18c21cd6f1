"""Simulate a whole cluster in one process, on virtual time, with faults, from one seed.

The Tracker, the Worker and everything below them down to the sockets is the product's own code, and so are the Lua
scripts. Simulated are the event loop (`loop`), the processes (`process`), the network between them and Redis
(`network`) and Redis itself (`server`). `python -m tests.simulation --help` runs it.
"""
