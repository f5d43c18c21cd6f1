"""Hold what the parts of one frontend need to know about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FrontendState:
    """Identify one frontend. `Membership` sets the id whenever it joins; the others only read it."""

    url: str = ""
    id: str = ""  # under which the lease is held; another one after the frontend was fenced
    draining: bool = False  # no more requests are admitted
