"""Decide who may call: API keys, roles, browser sessions."""
