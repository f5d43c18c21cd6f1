"""The measurements of the core work: each at its smallest, on real servers. The figures themselves are not judged."""

from __future__ import annotations

import math

import pytest

from benchmarks.core.__main__ import MEASUREMENTS


@pytest.mark.parametrize("name", MEASUREMENTS)
async def test_a_measurement_fills_its_tables(name: str) -> None:
    tables = await MEASUREMENTS[name](True)

    assert tables
    for table in tables:
        assert table.rows
        assert table.title in table.text()
        assert all(math.isfinite(cell) for row in table.rows for cell in row if not isinstance(cell, str))
