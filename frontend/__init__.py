"""The HTTP frontend: it accepts calls in OpenAI's format and tracks their requests through the cluster."""
