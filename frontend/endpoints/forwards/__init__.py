"""Forwards: calls whose answer is one JSON object of the engine's, such as embeddings and reranking."""
