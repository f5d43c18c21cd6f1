"""The HTTP frontend: OpenAI wire format in, lifecycle transitions out."""
