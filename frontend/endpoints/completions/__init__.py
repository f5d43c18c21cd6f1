"""Chat and text completions: validation, chunks, server-sent events and the unary answer."""
