"""Carry one HTTP call: its id, its headers, its dependencies, and the fast path past ASGI's layers."""
