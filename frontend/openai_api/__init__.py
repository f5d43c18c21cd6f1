"""Speak OpenAI's wire format: validation, schemas, server-sent events, the streaming response."""
