"""The event loop's clock, set by hand."""

from __future__ import annotations

from types import ModuleType

import pytest


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    @classmethod
    def of(cls, module: ModuleType, patch: pytest.MonkeyPatch) -> Clock:
        """Return a clock that the module uses as its running loop from now on."""
        clock = cls()
        patch.setattr(module.asyncio, "get_running_loop", lambda: clock)
        return clock
