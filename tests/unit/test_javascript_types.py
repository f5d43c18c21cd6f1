"""The types of the client for JavaScript have the fields that the HTTP API shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from frontend.routes.schemas import SCHEMAS

TYPES = (Path(__file__).parents[2] / "clients/js/src/types.ts").read_text()


def fields_of(interface: str) -> set[str]:
    """Return the names of an interface's own fields, not of those inside them."""
    found = re.search(rf"^export interface {interface} {{\n(.*?)^}}", TYPES, re.DOTALL | re.MULTILINE)
    assert found, interface
    return set(re.findall(r"^  (\w+)\??:", found[1], re.MULTILINE))


@pytest.mark.parametrize(
    ("interface", "schema"),
    [
        (name, name.replace("RequestRecord", "Request"))
        for name in ("RequestRecord", "Inflight", "Replica", "ModelQueue")
    ],
)
def test_an_interface_has_the_fields_of_its_schema(interface: str, schema: str) -> None:
    assert fields_of(interface) == SCHEMAS[schema]["properties"].keys()
