"""The worker: takes requests from Redis, runs an engine, streams tokens back."""
