"""List the client libraries and what each is compared in. `tests/reference` makes a table of it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.scripted import ANSWERS, INPUT_TOKENS, OUTPUT_TOKENS

PROGRAMS = Path(__file__).parent / "programs"
CODEX = Path(__file__).parent / "codex"
_ROOT = Path(__file__).parents[2]

FEATURES = (
    "text",
    "streamed text",
    "usage of a stream",
    "usage in every chunk",
    "tool call",
    "streamed tool call",
    "parallel tool calls",
    "streamed parallel tool calls",
    "agent with a tool",
    "structured output",
    "streamed structured output",
    "log probabilities",
    "two choices",
    "reasoning",
    "all recorded streams",
    "context overflow",
    "rate limit",
    "error in a stream",
    "abort",
)


RESPONSES_FEATURES = (
    "text",
    "streamed text",
    "tool call",
    "streamed tool call",
    "parallel tool calls",
    "streamed parallel tool calls",
    "agent with a tool",
    "conversation",
    "conversation by item ids",
    "structured output",
    "streamed structured output",
    "reasoning",
    "context overflow",
    "rate limit",
    "error in a stream",
    "abort",
    "background, resumed elsewhere",
    "background, cancelled elsewhere",
    "previous response",
)
MESSAGES_FEATURES = (
    "text",
    "streamed text",
    "tool call",
    "streamed tool call",
    "parallel tool calls",
    "streamed parallel tool calls",
    "agent with a tool",
    "reasoning",
    "context overflow",
    "rate limit",
    "error in a stream",
    "abort",
)


@dataclass(frozen=True)
class Client:
    """A client library. `package` is its name in constraints.txt, or in package.json for a program for node."""

    title: str
    program: str
    package: str
    missing: frozenset[str] = frozenset()  # features that the library does not have
    features: tuple[str, ...] = FEATURES

    @property
    def is_for_node(self) -> bool:
        return not self.program.endswith(".py")

    @property
    def folder(self) -> Path:
        """Return where the package.json is that has the package."""
        return CODEX if self.program == "codex" else PROGRAMS

    @property
    def command(self) -> list[str]:
        """Return the command that runs the program."""
        if self.is_for_node:
            return ["node", str(PROGRAMS / self.program)]
        return [sys.executable, "-W", "ignore", "-m", f"tests.clients.programs.{self.program.removesuffix('.py')}"]

    @property
    def version(self) -> str:
        """Return the version that the tests run with."""
        if self.is_for_node:
            return str(json.loads((self.folder / "package.json").read_text())["dependencies"][self.package])
        found = re.search(rf"^{self.package}==(.+)$", (_ROOT / "constraints.txt").read_text(), re.MULTILINE)
        assert found, f"constraints.txt has no {self.package}"
        return found[1]

    def what_is_missing(self) -> str:
        """Return why the program cannot run here, or an empty string."""
        if not self.is_for_node:
            module = {"openai-agents": "agents"}.get(self.package, self.package.removesuffix("-slim"))
            installed = importlib.util.find_spec(module.replace("-", "_"))
            return "" if installed else f"{self.package} is not installed: pip install -e '.[clients]'"
        if shutil.which("node") is None:
            return "node is not on PATH"
        if not (self.folder / "node_modules" / self.package).exists():
            return f"{self.package} is not installed: npm install in {self.folder.relative_to(_ROOT)}"
        return ""


_VLLM_ONLY = frozenset({"usage in every chunk"})
CLIENTS = (
    Client("openai, Python", "openai_python.py", "openai"),
    Client("openai, JS", "openai_node.mjs", "openai", _VLLM_ONLY),
    Client("LangChain", "langchain_python.py", "langchain-openai", _VLLM_ONLY),
    Client(
        "pydantic-ai",
        "pydantic_ai_python.py",
        "pydantic-ai-slim",
        _VLLM_ONLY | {"tool call", "all recorded streams", "log probabilities", "two choices"},
    ),
    Client("AI SDK", "ai_sdk.mjs", "ai", _VLLM_ONLY | {"log probabilities", "two choices"}),
    Client("LiteLLM", "litellm_python.py", "litellm", _VLLM_ONLY | {"streamed structured output"}),
)
DIFFERENT = {
    "usage in every chunk": "With vLLM's option `continuous_usage_stats` only the last chunk has a usage: a usage "
    "belongs to the end of a request.",
}

_SHORT = frozenset({"conversation", "conversation by item ids", "streamed structured output"})
TRACKERS_OWN: dict[str, Any] = {
    "background, resumed elsewhere": {
        "numbered": True,
        "repeated": True,
        "text": ANSWERS["text"].text,
        "calls": [],
        "status": "completed",
        "usage": [INPUT_TOKENS, OUTPUT_TOKENS, INPUT_TOKENS + OUTPUT_TOKENS],
    },
    "background, cancelled elsewhere": ["queued", "cancelled", "cancelled", True],
    "previous response": [ANSWERS["agent"].text, ["message", "function_call", "function_call_output"]],
}
"""What the programs make of features that no engine has a part in."""

RESPONSES_CLIENTS = (
    Client("openai, Python", "openai_responses_python.py", "openai", frozenset(), RESPONSES_FEATURES),
    Client("openai, JS", "openai_responses_node.mjs", "openai", _SHORT, RESPONSES_FEATURES),
    Client(
        "Agents SDK",
        "openai_agents_python.py",
        "openai-agents",
        _SHORT | {"tool call", "error in a stream", *TRACKERS_OWN},
        RESPONSES_FEATURES,
    ),
    Client("AI SDK", "ai_sdk_openai.mjs", "@ai-sdk/openai", frozenset(TRACKERS_OWN), RESPONSES_FEATURES),
)
CODEX_CLIENT = Client(
    "Codex",
    "codex",
    "@openai/codex",
    frozenset(RESPONSES_FEATURES) - {"streamed text", "streamed tool call", "agent with a tool"},
    RESPONSES_FEATURES,
)
MESSAGES_CLIENTS = (
    Client("anthropic, Python", "anthropic_python.py", "anthropic", frozenset(), MESSAGES_FEATURES),
    Client("anthropic, JS", "anthropic_node.mjs", "@anthropic-ai/sdk", frozenset(), MESSAGES_FEATURES),
)
