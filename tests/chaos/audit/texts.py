"""Check that an answer is one chain of attempts, without gap or repetition, and the same for every reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.chaos.audit.asked import Asked, attempt_of
from tests.chaos.audit.history import Call, History, How, Operation, Token


def faults_of(history: History, calls: Sequence[Call]) -> Iterator[str]:
    """Yield what is wrong with the texts that the readers of one request got."""
    readers = [call for call in calls if call.operation in (Operation.ADMIT, Operation.RESUME) and call.code == 200]
    asked = next((call.asked for call in calls if call.asked is not None), None)
    cut_short = any(call.operation is Operation.CANCEL for call in calls)
    for call in readers:
        if fault := _gap(call):
            yield fault
            return
        answered = not call.stream and call.how is How.WHOLE and not call.error
        if answered and asked is not None and (fault := asked.fault_of(call.text, complete=not cut_short)):
            yield f"{fault} (unary, at {call.completed_at:.2f} s)"
        if call.stream and call.how is How.WHOLE and not call.done:
            yield f"a stream ended in order without [DONE] at {call.completed_at:.2f} s"
    chains = list(_chains(readers))
    if history.may_have_lost(min(call.invoked_at for call in calls), max(call.completed_at for call in calls)):
        # Such an end says that this is no answer.
        chains = [chain for chain in chains if chain.call.error not in ("state_lost", "cancelled")]
    else:
        yield from _different_tokens(readers)
    if asked is not None:
        yield from _wrong_text(asked, chains, cut_short=cut_short)


class Chain(NamedTuple):
    """Hold what one client got by reading and resuming, from the beginning to the end of `call`."""

    call: Call
    tokens: tuple[Token, ...]


def _chains(readers: Sequence[Call]) -> Iterator[Chain]:
    """Yield what each reader has got together with those that it continues, if somebody has read the beginning."""
    found: list[Chain] = []
    for call in sorted(readers, key=lambda call: call.completed_at):
        if not call.stream:
            continue
        if call.after == (0, 0):
            chain = Chain(call, call.tokens)
        else:
            before = [
                chain
                for chain in found
                if chain.tokens
                and chain.tokens[-1].position == call.after
                and chain.call.completed_at <= call.invoked_at
            ]
            if not before:
                continue
            chain = Chain(call, before[-1].tokens + call.tokens)
        found.append(chain)
        yield chain


def _gap(call: Call) -> str:
    attempt, number = call.after
    for token in call.tokens:
        if token.number != number + 1 or token.attempt < attempt:
            return f"a reader got {token.attempt}-{token.number} right after {attempt}-{number}"
        attempt, number = token.position
    return ""


def _different_tokens(readers: Sequence[Call]) -> Iterator[str]:
    """A number has one text: what two readers got under it must be the same, and of the same attempt."""
    seen: dict[int, Token] = {}
    for call in readers:
        for token in call.tokens:
            other = seen.setdefault(token.number, token)
            if other != token:
                yield f"two readers got different tokens: {_shown(other)} and {_shown(token)}"
                return


def _wrong_text(asked: Asked, chains: Sequence[Chain], *, cut_short: bool) -> Iterator[str]:
    for call, tokens in chains:
        text = "".join(token.text for token in tokens)
        if fault := asked.fault_of(text, complete=call.succeeded and not cut_short):
            yield f"{fault} (by {call.operation} at {call.completed_at:.2f} s)"
            return
        for token in tokens:
            named = attempt_of(token.text) if asked.kind == "signed" else None
            if named is not None and named != token.attempt:
                yield f"{_shown(token)} was made by attempt {named}"
                return


def _shown(token: Token) -> str:
    return f"{token.attempt}-{token.number} {token.text!r}"
