"""`up`: run frontends, workers and, unless a URL is given, a Redis on one machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.aio import tasks
from lifecycle.cli import logs
from lifecycle.cli.flags import with_settings
from lifecycle.cli.options import Host
from lifecycle.cli.replica import Format
from lifecycle.cli.up import hints
from lifecycle.cli.up.models import choose_models
from lifecycle.cli.up.ports import choose_ports
from lifecycle.errors import LifecycleError
from lifecycle.settings import Settings, as_environment

if TYPE_CHECKING:
    from lifecycle.local.console import Console
    from lifecycle.local.redis_process import ServerProcess

_LIMIT = 64  # processes of one kind; `up` is meant for one machine
_JOINED_WITHIN_SECS = 60.0
_LOADED_WITHIN_SECS = 3600.0  # a large model takes long to load
_AFTER_DRAIN_SECS = 5.0  # for a drained child to give up its lease and exit
_SELF = (
    sys.executable,
    "-P",
    "-m",
    "lifecycle.cli.main",
)  # -P: a module in the current directory must not shadow our packages


@with_settings()
def up(
    settings: Settings,
    frontends: Annotated[int, typer.Option(help="Number of frontends.", min=1, max=_LIMIT)] = 2,
    workers: Annotated[int, typer.Option(help="Number of workers.", min=1, max=_LIMIT)] = 2,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the first frontend; the others use the ports after it. 0 picks free ports.", min=0, max=65_535
        ),
    ] = 8000,
    host: Host = "127.0.0.1",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the model, as clients request it; may be repeated. Without it, the openai engine serves what "
            "its upstream lists, and any other engine the model echo."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="SPEC", help="echo, openai, module:function or file.py:function.")
    ] = "echo",
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="URL of the openai engine's upstream; the same as --openai-base-url.")
    ] = "",
    log_format: Format = logs.LogFormat.AUTO,
) -> int:
    """Run everything on this machine, with a private Redis unless --redis-url is given. Ctrl-C stops everything."""
    from lifecycle.cli.up.own_redis import private_server
    from lifecycle.fastapi.api_keys import check_access
    from lifecycle.local.console import Console
    from lifecycle.webhooks.config import WebhookConfig

    check_access(settings, host)
    WebhookConfig.of(settings)
    if upstream:
        settings = settings.model_copy(update={"openai_base_url": upstream})
    models = choose_models(model or (), engine, settings)
    plan = Plan(
        host,
        tuple(choose_ports(host, port, frontends)),
        workers,
        models,
        engine,
        logs.resolve(log_format, terminal=sys.stdout.isatty()),
    )
    console = Console()
    given = settings.redis_url if "redis_url" in settings.model_fields_set else None
    with private_server(given, console.notice) as server:
        if server is not None:
            own = {"redis_url": server.url, "redis_password_file": "", "redis_sentinel_password_file": ""}
            settings = settings.model_copy(update=own)
        return asyncio.run(_run(plan, settings, console, server))


@dataclass(frozen=True)
class Plan:
    """The processes to run and the addresses they will listen on."""

    host: str
    ports: tuple[int, ...]
    workers: int
    models: tuple[str, ...]
    engine: str
    log_format: logs.LogFormat

    @property
    def urls(self) -> list[str]:
        """Return the URL of each frontend, as a client on this machine uses it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for port in self.ports]

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the name and the command line of each child process."""
        log_format = ("--log-format", self.log_format.value)
        for number, port in enumerate(self.ports, 1):
            yield f"frontend-{number}", [*_SELF, "frontend", "--host", self.host, "--port", str(port), *log_format]
        models = [text for model in self.models for text in ("--model", model)]
        for number in range(1, self.workers + 1):
            yield f"worker-{number}", [*_SELF, "worker", *models, "--engine", self.engine, *log_format]


async def _run(plan: Plan, settings: Settings, console: Console, server: ServerProcess | None) -> int:
    """Run all processes, and the server if it is given, and return the exit code. Raises LifecycleError."""
    from lifecycle.cli.up.own_redis import keep_running

    if server is None:
        return await _supervise(plan, settings, console, own_redis=False)
    try:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(keep_running(server, partial(console.notice, failure=True)), name="redis")
            code = await _supervise(plan, settings, console, own_redis=True)
            await tasks.end((keeping,))
    except* LifecycleError as failures:
        raise failures.exceptions[0] from None
    return code


async def _supervise(plan: Plan, settings: Settings, console: Console, *, own_redis: bool) -> int:
    from lifecycle.cli.up.readiness import Readiness
    from lifecycle.local.supervisor import Interrupted, Supervisor

    drain_secs = settings.drain_timeout_secs + _AFTER_DRAIN_SECS
    async with Supervisor(console, drain_secs=drain_secs) as supervisor, Readiness(plan.urls, settings) as readiness:
        environment = as_environment(settings)
        try:
            for name, argv in plan.commands():
                child = await supervisor.start(name, argv, environment)
                console.notice(f"{name} is starting (pid {child.pid})")
            pids = {name: child.pid for name, child in supervisor.children.items()}
            await supervisor.wait_ready(readiness.joined(pids), timeout_secs=_JOINED_WITHIN_SECS)
            await supervisor.wait_ready(readiness.started(pids, plan.models), timeout_secs=_LOADED_WITHIN_SECS)
        except Interrupted:
            return supervisor.exit_code
        console.notice(hints.text(plan.urls, plan.models[0], plan.engine, settings, own_redis=own_redis))
        return await supervisor.run()
