"""Authentication and authorization: API keys, roles, dashboard sessions and the access policy."""
