"""Answer questions about the whole cluster, and cancel many requests at once."""
