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
    frontends = [name for name in OURS if name.startswith("frontend")]
    upstreams = re.findall(r"upstream \w+ \{(.*?)\}", NGINX, re.DOTALL)
    assert [re.findall(r"server ([\w-]+):8000", upstream) for upstream in upstreams] == [frontends, frontends]
    assert "proxy_buffering off;" in NGINX
    published = {port.split(":")[1] for port in COMPOSE["services"]["nginx"]["ports"]}
    assert set(re.findall(r"listen (\d+);", NGINX)) == published


def test_a_post_is_sent_twice_only_after_a_503_and_under_the_same_id() -> None:
    before, again = NGINX.split("location @again {")
    assert "non_idempotent;" not in before
    assert "http_503 non_idempotent;" in again
    assert "proxy_set_header X-Request-Id $id;" in before
    assert "proxy_set_header" not in again, "one in a location would undo those of the server"


def test_dependencies_exist_and_can_become_healthy() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] == "service_healthy"
            assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_the_image_copies_what_is_there() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"COPY (?!--from)", line)]
    assert all((ROOT / name).exists() for names in copied for name in names)
    assert {"lifecycle", "frontend", "worker"} <= {name for names in copied for name in names}
    users = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert users
    assert users[-1] not in ("0", "root")


def test_redis_never_evicts() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
