"""`PerSettings` keeps what follows from the settings for as long as they apply."""

from __future__ import annotations

from frontend.transport.call_headers import CallHeaders
from lifecycle.settings import PerSettings, Settings, load


def test_it_is_derived_once_for_the_same_settings() -> None:
    derived: list[Settings] = []

    def derive(settings: Settings) -> int:
        derived.append(settings)
        return settings.queue_limit

    kept = PerSettings(derive)
    first, second = load({"queue_limit": 1}), load({"queue_limit": 2})
    assert [kept.of(settings) for settings in (first, first, second, second, first)] == [1, 1, 2, 2, 1]
    assert derived == [first, second, first]


def test_a_call_without_headers_is_read_by_the_settings_of_the_moment() -> None:
    for secs in (1.0, 2.0, 1.0):
        assert CallHeaders.parse({}, load({"deadline_secs": secs})).limits.deadline_secs == secs
