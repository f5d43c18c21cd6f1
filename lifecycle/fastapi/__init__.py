"""Serve HTTP with FastAPI: the client's connection, disconnects, errors."""
