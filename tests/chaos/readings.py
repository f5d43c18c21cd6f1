"""Check the streams that clients read: no gap, no repeated number, no splice, and an end that names the outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lifecycle.store.transitions import Store
from tests.chaos.signatures import signed_token, splice_in
from tests.sse import Event, Stream


@dataclass(eq=False)
class Reading:
    """One client's stream of one request, from behind `after`."""

    rid: str
    stream: Stream
    after: str = ""
    over: bool = False  # the client reads no more

    def tokens(self) -> list[tuple[int, int, str]]:
        """Attempt, number and text of each token event."""
        found = []
        for event in self.stream.events:
            if event.id is not None:
                attempt, _, number = event.id.partition("-")
                found.append((int(attempt), int(number), event.text))
        return found


def faults_of(reading: Reading) -> list[str]:
    """Return the faults of a stream that was read to its end or left before it."""
    if reading.stream.response.status_code != 200:
        return []
    found: list[str] = []
    attempt, number = 0, 0
    if reading.after:
        attempt, number = map(int, reading.after.split("-"))
    for next_attempt, next_number, _ in reading.tokens():
        if next_number != number + 1 or next_attempt < attempt:
            found.append(f"token {next_attempt}-{next_number} came after {attempt}-{number}")
        attempt, number = next_attempt, next_number
    found += _faults_of_signatures(reading)
    events = reading.stream.events
    errors = [index for index, event in enumerate(events) if _is_error(event)]
    done = [index for index, event in enumerate(events) if event.data == "[DONE]"]
    if len(errors) > 1:
        found.append(f"{len(errors)} error frames")
    if errors and done and errors[0] != done[0] - 1:
        found.append("the error frame does not come right before [DONE]")
    if done and done != [len(events) - 1]:
        found.append("[DONE] is not the last event, or came twice")
    if reading.stream.ended and not done:
        found.append("the server ended the stream without [DONE]")
    if any(event.event is not None for event in events):
        found.append("a named event")
    return [f"{reading.rid}: a client read: {fault}" for fault in found]


def _faults_of_signatures(reading: Reading) -> list[str]:
    """Tokens of an engine that signs them are those of the attempts that their ids name, and of one run for each."""
    signed = [(attempt, token) for attempt, _, text in reading.tokens() if (token := signed_token(text))]
    wrong = [f"attempt {attempt} has a token of {token}" for attempt, token in signed if token.attempt != attempt]
    splice = splice_in(token for _, token in signed)
    return [*wrong[:1], *([splice] if splice else [])]


async def differences(store: Store, reading: Reading, *, may_lose: bool = False) -> list[str]:
    """Return the tokens in which a client's stream differs from the token stream in Redis, if Redis still has it.

    `may_lose`: Redis may have forgotten an attempt, or its last tokens, but not have others in their place.
    """
    key = store.keys.prefix_of(reading.rid) + "tokens:" + reading.rid
    kept: dict[int, tuple[int, str]] = {}
    for entry_id, fields in await store.commands.execute("XRANGE", key, "-", "+"):
        attempt, _, last = entry_id.decode().partition("-")
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        if b"t" in values:
            texts = json.loads(values[b"t"])
            first = int(last) - len(texts) + 1
            kept.update({first + index: (int(attempt), text) for index, text in enumerate(texts)})
    if not kept:
        return []
    return [
        f"{reading.rid}: a client read {attempt}-{number} {text!r}, the token stream has {kept.get(number)}"
        for attempt, number, text in reading.tokens()
        if kept.get(number) != (attempt, text) and not (may_lose and kept.get(number, (0, ""))[0] != attempt)
    ][:3]


def _is_error(event: Event) -> bool:
    return isinstance(event.data, dict) and "error" in event.data
