"""The endpoint of the Responses API."""
