"""Carry tokens from an engine to the clients that read them.

worker: engine → TokenSink → TokenWriter ── append ──▶ Redis: token stream, and the inbox of each frontend that reads
frontend: Inbox ──▶ RequestFeed (one for each request) ──▶ TokenReader (one for each client, resumable)

The token stream in Redis is authoritative. What reaches an inbox is a notification that may be lost; the numbers of the
tokens show when that has happened.
"""
