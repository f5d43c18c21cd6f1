"""Ask and command a cluster from a script, a notebook or another service: over Redis, or over HTTP."""
