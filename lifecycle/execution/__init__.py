"""Run engines: the worker, its queue consumers, its running requests, and one attempt at a request."""
