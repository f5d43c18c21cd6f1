"""Building blocks for serving HTTP with FastAPI: the client's connection, disconnects and error responses."""
