"""Manage processes on this machine: child processes, a supervisor, an embedded Redis."""
