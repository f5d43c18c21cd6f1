"""`up`: frontends, workers and, if need be, a Redis: the whole thing on one machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import logs
from lifecycle.cli.flags import with_settings
from lifecycle.cli.options import Host
from lifecycle.cli.replica import Format
from lifecycle.cli.up import hints
from lifecycle.cli.up.ports import choose_ports
from lifecycle.settings import Settings, as_environment

if TYPE_CHECKING:
    from lifecycle.local.console import Console

_LIMIT = 64  # processes of one kind: this is for one machine
_READY_WITHIN_SECS = 60.0
_AFTER_DRAIN_SECS = 5.0  # for a child that has drained to say goodbye
_SELF = (sys.executable, "-P", "-m", "lifecycle.cli.main")  # -P: nothing in this directory shadows a package of ours


@with_settings()
def up(
    settings: Settings,
    frontends: Annotated[int, typer.Option(help="How many frontends.", min=1, max=_LIMIT)] = 2,
    workers: Annotated[int, typer.Option(help="How many workers.", min=1, max=_LIMIT)] = 2,
    port: Annotated[
        int, typer.Option(help="The first frontend's; the others follow. 0: free ones.", min=0, max=65_535)
    ] = 8000,
    host: Host = "127.0.0.1",
    model: Annotated[str, typer.Option(help="The name clients ask for.")] = "echo",
    engine: Annotated[str, typer.Option(metavar="SPEC", help="echo, openai, or module:function.")] = "echo",
    log_format: Format = logs.LogFormat.AUTO,
) -> int:
    """Run everything on this machine, with a Redis of its own unless one is given. Ctrl-C ends it all."""
    from frontend.auth.api_keys import check_access
    from lifecycle.local.console import Console
    from lifecycle.local.embedded_redis import open_redis

    check_access(settings, host)
    plan = Plan(
        host,
        tuple(choose_ports(host, port, frontends)),
        workers,
        model,
        engine,
        logs.resolve(log_format, terminal=sys.stdout.isatty()),
    )
    console = Console()
    given = settings.redis_url if "redis_url" in settings.model_fields_set else None
    with open_redis(given, announce=console.notice) as url:
        return asyncio.run(_run(plan, settings.model_copy(update={"redis_url": url}), console, own_redis=not given))


@dataclass(frozen=True)
class Plan:
    """What is to run, and where it will answer."""

    host: str
    ports: tuple[int, ...]
    workers: int
    model: str
    engine: str
    log_format: logs.LogFormat

    @property
    def urls(self) -> list[str]:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for port in self.ports]

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Name and command line of each child."""
        log_format = ("--log-format", self.log_format.value)
        for number, port in enumerate(self.ports, 1):
            yield f"frontend-{number}", [*_SELF, "frontend", "--host", self.host, "--port", str(port), *log_format]
        for number in range(1, self.workers + 1):
            yield f"worker-{number}", [*_SELF, "worker", "--model", self.model, "--engine", self.engine, *log_format]


async def _run(plan: Plan, settings: Settings, console: Console, *, own_redis: bool) -> int:
    from lifecycle.cli.up.readiness import Readiness
    from lifecycle.local.supervisor import Interrupted, Supervisor

    drain_secs = settings.drain_timeout_secs + _AFTER_DRAIN_SECS
    async with Supervisor(console, drain_secs=drain_secs) as supervisor, Readiness(plan.urls, settings) as readiness:
        environment = as_environment(settings)
        try:
            for name, argv in plan.commands():
                child = await supervisor.start(name, argv, environment)
                console.notice(f"{name} starts (pid {child.pid})")
            pids = {name: child.pid for name, child in supervisor.children.items()}
            await supervisor.wait_ready(readiness.conditions(pids, plan.model), timeout_secs=_READY_WITHIN_SECS)
        except Interrupted:
            return supervisor.exit_code
        console.notice(hints.text(plan.urls, plan.model, plan.engine, settings, own_redis=own_redis))
        return await supervisor.run()
