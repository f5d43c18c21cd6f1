"""Read the list of models that an OpenAI-compatible server answers to `GET /v1/models`."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson


class ModelList(NamedTuple):
    """The models that an upstream lists.

    `max_model_len` is the longest prompt and answer together, in tokens: by model, or one number for a server that
    lists a single model, since such a server (llama.cpp) may serve it under any name. None where it is not told.
    """

    names: list[str]
    max_model_len: int | dict[str, int] | None


def parse_models(body: bytes) -> ModelList | None:
    """Return the list in a response's body; None when it is not such a list, or an empty one."""
    try:
        listed = orjson.loads(body)["data"]
        names = [model["id"] for model in listed]
    except (ValueError, KeyError, TypeError):
        return None
    if not names or not all(isinstance(name, str) and name for name in names):
        return None
    lengths = {model["id"]: length for model in listed if (length := _max_model_len(model)) is not None}
    return ModelList(names, next(iter(lengths.values()), None) if len(names) == 1 else lengths)


def _max_model_len(model: dict[str, Any]) -> int | None:
    meta = model.get("meta")
    # `n_ctx` is llama.cpp's; `n_ctx_train` beside it may be more than what the server was started with.
    for length in (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if type(length) is int and length > 0:
            return length
    return None
