"""Processes of `lifecycle frontend` and `lifecycle worker` that need not import everything anew.

Half a second of each start goes into imports, and the tests start many hundreds of replicas. `parent.py` has imported
what a replica needs, and forks; `start.py` asks it to. The child is a process like any other: it has its own session,
environment, module path and log, and runs the installed script's `main`. Whatever the interpreter itself reads at its
start has to be the same, so a start with other such variables is a start of a new interpreter.
"""
