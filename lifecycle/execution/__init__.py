"""Run engines: the worker, its queue consumers, and one attempt at a request."""
