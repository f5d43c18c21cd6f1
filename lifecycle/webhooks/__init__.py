"""Deliver webhooks: signed events that report the ends of requests to HTTP servers."""
