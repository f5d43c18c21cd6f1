"""Query the whole cluster, and cancel many requests at once."""
