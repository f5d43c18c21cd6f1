"""Building blocks for serving HTTP with FastAPI: the client's connection, disconnects and error responses."""

__all__: list[str] = []
