"""OpenAI's wire format: validation of calls, schemas, server-sent events and the streaming response."""
