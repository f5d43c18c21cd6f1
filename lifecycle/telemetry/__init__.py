"""Export metrics, log lines and traces."""
