"""Say what a client asks a model for, and which text that may give.

- `any`: a real model's. Nothing is known about its text but that all readers must get the same.
- `echo`: the prompt itself.
- `signed`: the engines `signed` and `steadfast` of `tests/chaos/engines.py`: each token names its number, the attempt
  and the run of the engine that made it, so that two runs' texts in one answer show.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos.signatures import signed_token, signed_tokens, splice_in

KINDS = ("any", "echo", "signed")


@dataclass(frozen=True)
class Asked:
    """One request's model, prompt and length; see the module for `kind`.

    `may_be_stopped`: the request that has started it is stopped at some time, and so it may complete early.
    """

    model: str
    kind: str
    prompt: str
    words: int
    may_be_stopped: bool = False

    def fault_of(self, text: str, *, complete: bool) -> str:
        """Return what is wrong with the text of an answer, complete or a part from its beginning; else ''."""
        if self.kind == "echo":
            right = text == self.prompt if complete else self.prompt.startswith(text)
            return "" if right else f"{text!r} is not {'' if complete else 'the beginning of '}{self.prompt!r}"
        if self.kind == "signed":
            return self._fault_of_signed(text, complete)
        return ""

    def _fault_of_signed(self, text: str, complete: bool) -> str:
        tokens = signed_tokens(text)
        if tokens is None:
            return f"{text!r} is not made of whole tokens"
        for expected, token in enumerate(tokens):
            if token.number != expected:
                return f"token {expected} of the engine is missing or comes late: {text!r}"
        if splice := splice_in(tokens):
            return f"{splice}: {text!r}"
        if complete and not self.may_be_stopped and len(tokens) != self.words:
            return f"{len(tokens)} tokens of {self.words} are said to be all: {text!r}"
        return ""


def ask_for(model: str, kind: str, words: int) -> Asked:
    """Ask for so many words, where the engine lets a prompt decide it."""
    if kind == "signed":
        return Asked(model, kind, f"{words} 0.05", words)
    return Asked(model, kind, " ".join(f"w{number}" for number in range(words)), words)


def attempt_of(text: str) -> int | None:
    """Return the attempt that a signed token names."""
    token = signed_token(text)
    return token.attempt if token else None
