"""Anthropic's Messages API: creating a message, and counting its tokens."""
