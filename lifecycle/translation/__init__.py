"""Translate calls of other endpoints into chat completions, and the events of chat into theirs."""
