"""`frontend` and `worker`: run one process until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from lifecycle.cli import alive, logs, traces, unknown_variables
from lifecycle.cli.flags import with_settings
from lifecycle.cli.logs import LogFormat
from lifecycle.cli.options import Host
from lifecycle.settings import Settings

log = logging.getLogger(__name__)

_GC_THRESHOLDS = (10_000, 20, 20)  # a full collection takes tens of milliseconds with thousands of open streams

Format = Annotated[
    LogFormat,
    typer.Option(
        "--log-format", envvar="LIFECYCLE_LOG_FORMAT", help="auto: readable lines on a terminal, otherwise JSON lines."
    ),
]

AliveFile = Annotated[
    Path | None,
    typer.Option(
        envvar="LIFECYCLE_ALIVE_FILE",
        metavar="PATH",
        help="File that is touched with every heartbeat, whether or not Redis answers, for probes.",
    ),
]


@with_settings()
def frontend(
    settings: Settings,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65_535)] = 8000,
    log_format: Format = LogFormat.AUTO,
    alive_file: AliveFile = None,
) -> int:
    """Run one frontend: the OpenAI API, the request API, metrics and the dashboard."""
    logs.configure(settings.log_level, log_format)
    from frontend.server import serve

    with traces.exported("lifecycle-frontend"):
        _run(serve(settings, host, port), settings, alive_file)
    return 0


@with_settings()
def worker(
    settings: Settings,
    engine: Annotated[str, typer.Option(metavar="SPEC", help="echo, openai, module:function or file.py:function.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the model, as clients request it; may be repeated. "
            "Without it, the openai engine serves what its upstream lists."
        ),
    ] = None,
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="URL of the openai engine's upstream; the same as --openai-base-url.")
    ] = "",
    log_format: Format = LogFormat.AUTO,
    alive_file: AliveFile = None,
) -> int:
    """Run one worker: take requests for its models and run its engine."""
    logs.configure(settings.log_level, log_format)
    from worker.server import serve

    if upstream:
        settings = settings.model_copy(update={"openai_base_url": upstream})
    with traces.exported("lifecycle-worker"):
        touch = alive_file.touch if alive_file else None
        _run(serve(settings, model or (), engine, touch), settings, alive_file)
    return 0


def _run(work: Coroutine[Any, Any, None], settings: Settings, alive_file: Path | None) -> None:
    """Run on uvloop where it is installed, with a garbage collector that runs less often and skips start-up objects."""
    for line in unknown_variables.warnings():
        log.warning(line)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(alive.while_running(work, alive_file, settings.heartbeat_secs) if alive_file else work)
