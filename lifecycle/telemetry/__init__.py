"""Report what happens: metrics, log lines and traces."""
