"""Keep a replica's lease, and clean up after replicas whose lease has expired."""
