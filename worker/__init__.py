"""Run a worker process: take requests from Redis, run an engine, and stream its tokens back."""
