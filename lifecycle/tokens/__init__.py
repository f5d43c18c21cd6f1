"""The token path. The token stream in Redis is the truth, a frontend's inbox is a push, numbers decide.

worker: engine → TokenSink → TokenWriter ──append──▶ Redis: token stream + inbox of each reading frontend
frontend: Inbox ──▶ Feed (one a request) ──▶ TokenReader (one a client, resumable)
"""
