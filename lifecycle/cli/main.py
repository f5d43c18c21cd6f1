"""Define the command line, and turn each failure into one line on standard error and an exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage or setting, 130 interrupted.

This package is the composition root: it alone may import everything else. Commands import heavy modules only when
they run, so that `lifecycle ps` starts without loading a web framework.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import lifecycle
from lifecycle.cli import keys, listing, output, queue, replica, replicas, settings, tail, top, why
from lifecycle.cli.cancel.command import cancel
from lifecycle.cli.doctor.command import doctor
from lifecycle.cli.up.command import up
from lifecycle.errors import REFUSES, LifecycleError, StoreForbidden, StoreUnavailable
from lifecycle.settings import SettingsError, environment_name

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
_UNWRITABLE = frozenset((errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF))

app = typer.Typer(
    name="lifecycle",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels truncate the long names of settings
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Track the life of language-model requests across frontends and workers, on Redis."""
    if version:
        typer.echo(f"lifecycle {lifecycle.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


for command in (
    up,
    replica.frontend,
    replica.worker,
    listing.ps,
    listing.inflight,
    queue.queue,
    cancel,
    tail.tail,
    why.why,
    top.top,
    doctor,
):
    app.command()(command)
app.add_typer(replicas.app)
app.add_typer(keys.app)
app.add_typer(settings.app)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; a failure is printed as one line on standard error."""
    try:
        code: Any = app(args=list(arguments), prog_name="lifecycle", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as failure:
        where = getattr(getattr(failure, "ctx", None), "command_path", "lifecycle")
        output.complain(f"{where}: {failure.format_message()} (see {where} --help)")
        return failure.exit_code
    except SettingsError as failure:
        output.complain(f"lifecycle: {failure}")
        return WRONG_USAGE
    except StoreUnavailable as failure:
        output.complain(f"lifecycle: {failure.message}{_advice(failure)}")
        return FAILED
    except LifecycleError as failure:
        output.complain(f"lifecycle: {failure.message}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as failure:
        if failure.errno not in _UNWRITABLE or failure.filename is not None:
            raise
        if failure.errno != errno.EPIPE:  # its reader needs no more
            output.complain(f"lifecycle: the output cannot be written: {failure.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return FAILED
    except Exception as failure:
        if not _is_redis_error(failure):
            raise
        output.complain(f"lifecycle: Redis refused a command: {failure}")
        return FAILED
    return code if isinstance(code, int) else 0


def _advice(failure: StoreUnavailable) -> str:
    """Return what to do when Redis gave no usable answer: an address does not help where it answers and refuses."""
    if not isinstance(failure, StoreForbidden):
        refuses = failure.summary.startswith(REFUSES)
        return "" if refuses else f" (set {environment_name('redis_url')} or --redis-url to the address of Redis)"
    from lifecycle.store.permissions import how_to_allow

    return f" ({how_to_allow(failure.commands)})"


def _is_redis_error(failure: Exception) -> bool:
    """Return whether this is redis-py's error, without importing redis-py: it is loaded if it raised the error."""
    redis = sys.modules.get("redis")
    return redis is not None and isinstance(failure, redis.RedisError)


def main() -> None:
    """Run the command line of this process and exit with its code.

    What the terminal's encoding cannot show is replaced: a locale without UTF-8 must not end a command. A standard
    output that is closed is opened such that writing fails.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
