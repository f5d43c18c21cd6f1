"""Tell whether what a reader has read and what the stream has come from the same start of an attempt.

A failover may lose a start whose tokens were read. The attempt that another worker starts then gets the same number, so
that only the nonces of the starts differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.ids import TokenId
from lifecycle.store.results import StartedAttempt
from lifecycle.tokens.feed import RequestFeed
from lifecycle.tokens.history import HistoryPage
from lifecycle.types import RequestRecord

_UNKNOWN = -1


@dataclass(slots=True)
class ReadStart:
    """Describe the start of the attempt that a reader is in.

    - `nonce`: the start's nonce; empty when it is not known, as for a client that resumes
    - `base`: how many tokens earlier attempts have left
    """

    nonce: str
    base: int

    @classmethod
    def before(cls, after: TokenId) -> ReadStart:
        """Return what is known of a reader that begins behind the token `after`."""
        return cls("", _UNKNOWN if after.number else 0)

    def differs_in(self, page: HistoryPage, read: TokenId, feed: RequestFeed) -> bool:
        """Return whether the page continues another start than that of the last token read.

        If it does not, note its start. A position that a client hands back has no nonce, so the feed is asked too.
        """
        opened = page.opened
        if read.attempt == 0:
            return False
        if opened is None:
            return self._has_read(read) and bool(page.items)
        if not self._has_read(read):
            self.nonce = opened.nonce
            return opened.base != read.number
        known = self._known(read, feed)
        if known and opened.nonce and known != opened.nonce:
            return True
        if not self.nonce and read.attempt <= feed.lost_start:
            return True
        if self.base == _UNKNOWN and opened.base > read.number:
            return True  # a token with this number came from an earlier attempt
        self.nonce, self.base = opened.nonce, opened.base
        return False

    def differs_from(self, record: RequestRecord, read: TokenId, feed: RequestFeed) -> bool:
        """Return whether the record shows another start of the attempt of the last token read."""
        known = self._known(read, feed)
        same_number = record.attempt == read.attempt and self._has_read(read)
        return same_number and bool(known and record.start_nonce) and known != record.start_nonce

    def named(self, read: TokenId, feed: RequestFeed) -> StartedAttempt | None:
        """Return the start of the last token read; None when nobody here knows it, or no token of it was read."""
        known = self._known(read, feed)
        return StartedAttempt(read.attempt, known) if known and self._has_read(read) else None

    def _has_read(self, read: TokenId) -> bool:
        """Return whether tokens of this attempt were read."""
        return read.number > self.base

    def _known(self, read: TokenId, feed: RequestFeed) -> str:
        return self.nonce or feed.starts.get(read.attempt, "")
