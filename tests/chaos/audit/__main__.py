"""Load a deployment, record every call with its answer, and check the history of each request.

The deployment may have any engine and any number of frontends; name them all, so that each request is asked for
everywhere. The load starts, resumes and cancels requests, so it costs what they cost.
Ends with status 0 when nothing was wrong, 1 when something was, 2 when the deployment could not be audited, 130 when it
was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.chaos.audit.asked import KINDS
from tests.chaos.audit.checker import check
from tests.chaos.audit.history import History, Window
from tests.chaos.audit.load import Load
from tests.chaos.audit.recorder import Recorder
from tests.chaos.audit.report import lines_of

_PROGRESS_SECS = 5.0


class CannotAudit(Exception):
    """Raised when a deployment cannot be called or audited."""


class _Audited(NamedTuple):
    history: History
    outcomes: Counter[tuple[str, str]]
    is_interrupted: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.audit", description=__doc__)
    parser.add_argument("urls", metavar="URL", nargs="*", help="the frontends, such as http://127.0.0.1:8000")
    parser.add_argument("--model", action="append", help="may be repeated; default: the first that is served")
    parser.add_argument("--text", choices=KINDS, help="what its text is: default `echo` for a model of that name")
    parser.add_argument("--api-key", help="sent as a Bearer token; an operator's key, or one of a client")
    parser.add_argument("--concurrency", type=int, default=8, help="clients at a time (8)")
    parser.add_argument("--secs", type=float, default=60.0, help="how long new requests are started (60)")
    parser.add_argument("--seed", type=int, default=1, help="decides which clients come in which order (1)")
    parser.add_argument("--timeout-secs", type=float, default=120.0, help="how long one answer may take (120)")
    parser.add_argument("--retention-secs", type=float, default=600.0, help="LIFECYCLE_RETENTION_SECS (600)")
    parser.add_argument("--settle-secs", type=float, default=20.0, help="lease + sweep and some seconds (20)")
    parser.add_argument("--shared", action="store_true", help="others use it too: counts may be higher")
    parser.add_argument("--disturbed", action="store_true", help="you break processes or links meanwhile")
    parser.add_argument("--loses-data", action="store_true", help="you make Redis lose data meanwhile")
    parser.add_argument("--history", type=Path, metavar="FILE", help="write the history there")
    parser.add_argument("--check", type=Path, metavar="FILE", help="check this history and call nothing")
    return parser


async def _run(given: argparse.Namespace) -> _Audited:
    headers = {"Authorization": f"Bearer {given.api_key}"} if given.api_key else {}
    history = History(given.retention_secs, given.settle_secs, given.shared)
    if given.disturbed or given.loses_data:
        history.windows.append(Window(0.0, float("inf"), "said on the command line", given.loses_data, None))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    timeout = given.timeout_secs + 5
    async with httpx2.AsyncClient(timeout=timeout, trust_env=False, limits=limits, headers=headers) as http:
        urls = [_frontend_url(url) for url in given.urls]
        prefix = f"audit-{secrets.token_hex(4)}-"
        models = given.model
        for number, url in enumerate(urls):
            served = await _served_models(http, url, f"{prefix}models-{number}")
            models = models or served[:1]
            for model in set(models) - set(served):
                raise CannotAudit(f"{url}: the model {model!r} is not served; these are: {', '.join(served)}")
        texts = [(model, given.text or ("echo" if model == "echo" else "any")) for model in models]
        recorder = Recorder(http, history, timeout_secs=given.timeout_secs)
        load = Load(recorder, lambda: urls, texts, seed=given.seed, clients=given.concurrency, prefix=prefix)
        running = asyncio.create_task(load.run(), name="load")
        interrupted = _stop_at_an_interrupt(load)
        try:
            while recorder.now() < given.secs and not running.done():
                await asyncio.wait([running], timeout=min(_PROGRESS_SECS, max(0.0, given.secs - recorder.now())))
                print(f"{recorder.now():6.0f} s: {load.started} requests, {len(history.calls)} calls", flush=True)
        finally:
            load.stop()
            await running
        return _Audited(history, load.outcomes, interrupted.is_set())


def _stop_at_an_interrupt(load: Load) -> asyncio.Event:
    """Let the first SIGINT start no more requests, and the second one end the process."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        print("interrupted: the requests that were started are followed to their ends", flush=True)
        loop.remove_signal_handler(signal.SIGINT)
        interrupted.set()
        load.stop()

    loop.add_signal_handler(signal.SIGINT, stop)
    return interrupted


def _frontend_url(given: str) -> str:
    """Return a frontend's URL, which may be given without its scheme or as the base URL of a client library."""
    url = given if "://" in given else f"http://{given}"
    return url.rstrip("/").removesuffix("/v1")


async def _served_models(http: httpx2.AsyncClient, url: str, rid: str) -> list[str]:
    """Return the models that a frontend serves. Raises CannotAudit when it cannot be called, or ignores ids."""
    try:
        answer = await http.get(f"{url}/v1/models", headers={"X-Request-Id": rid})
    except (httpx2.HTTPError, httpx2.InvalidURL) as failure:
        raise CannotAudit(f"{url} cannot be called: {failure or type(failure).__name__}") from None
    if answer.status_code in (401, 403):
        raise CannotAudit(f"{url} answered {answer.status_code}; give a valid key with --api-key")
    if answer.status_code != 200:
        raise CannotAudit(f"{url}/v1/models answered {answer.status_code}; is this the URL of a frontend?")
    if answer.headers.get("x-request-id") != rid:
        raise CannotAudit(f"{url}: X-Request-Id is ignored, and the audit needs it to name its requests")
    models = [str(model["id"]) for model in answer.json()["data"]]
    if not models:
        raise CannotAudit(f"{url}: no model is served; start a worker first")
    return models


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    if given.check is not None:
        audited = _Audited(History.read(given.check), Counter(), False)
    elif not given.urls:
        parser.error("name the frontends")
    elif given.secs <= 0 or given.concurrency < 1:
        parser.error("--secs and --concurrency must be greater than 0")
    else:
        try:
            audited = asyncio.run(_run(given))
        except KeyboardInterrupt:
            return 130
        except CannotAudit as failure:
            print(failure, file=sys.stderr)
            return 2
    history = audited.history
    if given.history is not None:
        history.write(given.history)
    violations = check(history)
    if not any(call.succeeded for call in history.calls):
        violations.append("no request has completed, so nothing was shown")
    print("\n".join(lines_of(history, audited.outcomes, violations)))
    return 1 if violations else 130 if audited.is_interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
