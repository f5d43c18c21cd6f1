"""The HTTP edge: the limits of connections, heads and bodies, and what browsers may send from other sites."""
