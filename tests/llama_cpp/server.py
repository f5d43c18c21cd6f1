"""Serve a model with llama.cpp's own HTTP server, until the process is ended.

    python -m tests.llama_cpp.server PORT MODEL.gguf [embeddings]

With `embeddings` it embeds texts too. The context shifts, so that a call with `ignore_eos` and without `max_tokens`
never ends by itself.
"""

from __future__ import annotations

import signal
import sys

import xllamacpp

from tests.llama_cpp.calls import MODEL

SLOTS = 2
CONTEXT_TOKENS_PER_SLOT = 4096


def parameters(port: int, path: str, *, embeddings: bool) -> xllamacpp.CommonParams:
    """Return the server's parameters: one thread, and the endpoint that says which slots are busy."""
    chosen = xllamacpp.CommonParams()
    chosen.model.path = path
    chosen.model_alias = {MODEL}
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = port
    chosen.n_parallel = SLOTS
    chosen.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    chosen.ctx_shift = True
    chosen.cpuparams.n_threads = 1
    chosen.cpuparams_batch.n_threads = 1
    chosen.warmup = False
    chosen.use_jinja = True
    chosen.endpoint_slots = True
    chosen.ui = False
    if embeddings:
        chosen.embedding = True
        chosen.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return chosen


if __name__ == "__main__":
    chosen = parameters(int(sys.argv[1]), sys.argv[2], embeddings="embeddings" in sys.argv[3:])
    server = xllamacpp.Server(chosen)
    signal.pause()
