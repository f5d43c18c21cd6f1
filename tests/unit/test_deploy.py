"""What cannot be run without a Docker engine is at least held to what it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lifecycle.cli.main import app
from lifecycle.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
OURS = sorted(name for name, service in COMPOSE["services"].items() if "build" in service)


def test_there_are_redis_two_frontends_behind_a_balancer_and_two_workers() -> None:
    assert set(COMPOSE["services"]) == {"redis", "nginx", *OURS}
    assert OURS == ["frontend-1", "frontend-2", "worker-1", "worker-2"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists_and_every_command_is_understood(name: str) -> None:
    service = COMPOSE["services"][name]
    for variable in service["environment"]:
        assert variable.removeprefix(PREFIX).lower() in Settings.model_fields
    answer = CliRunner().invoke(app, [*service["command"], "--help"])
    assert answer.exit_code == 0
    flags = [word for word in service["command"] if word.startswith("--")]
    assert all(flag in answer.output for flag in flags)


@pytest.mark.parametrize("name", OURS)
def test_a_drain_is_not_cut_short(name: str) -> None:
    service = COMPOSE["services"][name]
    grace_secs = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_secs > int(service["environment"]["LIFECYCLE_DRAIN_TIMEOUT_SECS"]) + 10


def test_the_balancer_knows_the_frontends_and_buffers_nothing() -> None:
    servers = set(re.findall(r"server (frontend-\d):8000", NGINX))
    assert servers == {name for name in OURS if name.startswith("frontend")}
    assert "proxy_buffering off;" in NGINX
    assert "non_idempotent;" not in NGINX, "a POST must not be sent twice"
    published = {port.split(":")[1] for port in COMPOSE["services"]["nginx"]["ports"]}
    assert set(re.findall(r"listen (\d+);", NGINX)) == published


def test_redis_never_evicts() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
