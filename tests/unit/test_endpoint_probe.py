"""Read what the answers of real servers to an empty object say about an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.engines.endpoint_probe import Verdict, judge


def openai_error(message: str, code: int, kind: str = "BadRequestError") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


ANSWERS: dict[str, tuple[int, Any, Verdict]] = {
    "FastAPI has no such path": (404, {"detail": "Not Found"}, Verdict.NOT_SERVED),
    "FastAPI misses a field": (422, {"detail": [{"type": "missing", "loc": ["body", "input"]}]}, Verdict.SERVED),
    "vLLM has no such path": (404, openai_error("Not Found", 404, "Not Found"), Verdict.NOT_SERVED),
    "vLLM misses a field": (400, openai_error("1 validation error: messages", 400), Verdict.SERVED),
    "vLLM's model has another task": (
        400,
        {"object": "error", "message": "The model does not support Embeddings API", "code": 400},
        Verdict.NOT_SERVED,
    ),
    "vLLM checks a key": (401, {"error": "Unauthorized"}, Verdict.LATER),
    "llama.cpp has no such path": (404, openai_error("File Not Found", 404, "not_found_error"), Verdict.NOT_SERVED),
    "llama.cpp misses a field": (400, openai_error("'input' is required", 400), Verdict.SERVED),
    "llama.cpp misses a field of messages": (500, openai_error("'messages' is required", 500), Verdict.SERVED),
    "llama.cpp without --embeddings": (
        501,
        openai_error("This server does not support embeddings. Start it with `--embeddings`", 501),
        Verdict.NOT_SERVED,
    ),
    "llama.cpp loads its model": (503, openai_error("Loading model", 503, "unavailable_error"), Verdict.LATER),
    "llama.cpp tokenizes nothing": (200, {"tokens": []}, Verdict.UNCLEAR),
    "Ollama has no such path": (404, "404 page not found", Verdict.NOT_SERVED),
    "Ollama has no such model": (404, openai_error("model '' not found", 404), Verdict.SERVED),
    "LM Studio has no such path": (200, {"error": "Unexpected endpoint or method. (POST /v1/x)"}, Verdict.NOT_SERVED),
    "another method": (405, {"detail": "Method Not Allowed"}, Verdict.NOT_SERVED),
    "a framework's page": (500, "<html>Internal Server Error</html>", Verdict.UNCLEAR),
    "an answer to nothing": (200, {"choices": []}, Verdict.UNCLEAR),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_understood(name: str) -> None:
    status, body, verdict = ANSWERS[name]
    assert judge(status, (body if isinstance(body, str) else json.dumps(body)).encode()) is verdict
