"""The command line, which puts a process together from the library, `frontend` and `worker`."""

from lifecycle import own_packages

for _name in ("frontend", "worker"):
    own_packages.bind(_name)
