"""Load a deployment, record every call with its answer, and check the history of each request.

The deployment may have any engine and any number of frontends; name them all, so that each request is asked for
everywhere. The load starts, resumes and cancels requests, so it costs what they cost.
Ends with status 0 when nothing was wrong, 1 when something was, 2 when the deployment could not be audited.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections import Counter
from pathlib import Path

import httpx2

from tests.chaos.audit.asked import KINDS
from tests.chaos.audit.checker import check
from tests.chaos.audit.history import History, Window
from tests.chaos.audit.load import Load
from tests.chaos.audit.recorder import Recorder
from tests.chaos.audit.report import lines_of

_PROGRESS_SECS = 5.0


class CannotAudit(Exception):
    """Raised when a deployment can be called, but not audited."""


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


async def _run(given: argparse.Namespace) -> tuple[History, Counter[tuple[str, str]]]:
    headers = {"Authorization": f"Bearer {given.api_key}"} if given.api_key else {}
    history = History(given.retention_secs, given.settle_secs, given.shared)
    if given.disturbed or given.loses_data:
        history.windows.append(Window(0.0, float("inf"), "said on the command line", given.loses_data, None))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    timeout = given.timeout_secs + 5
    async with httpx2.AsyncClient(timeout=timeout, trust_env=False, limits=limits, headers=headers) as http:
        urls = [url.rstrip("/") for url in given.urls]
        prefix = f"audit-{secrets.token_hex(4)}-"
        first = await _first_model(http, urls[0], f"{prefix}models")
        models = given.model or [first]
        texts = [(model, given.text or ("echo" if model == "echo" else "any")) for model in models]
        recorder = Recorder(http, history, timeout_secs=given.timeout_secs)
        load = Load(recorder, lambda: urls, texts, seed=given.seed, clients=given.concurrency, prefix=prefix)
        running = asyncio.create_task(load.run(), name="load")
        try:
            while recorder.now() < given.secs and not running.done():
                await asyncio.wait([running], timeout=min(_PROGRESS_SECS, max(0.0, given.secs - recorder.now())))
                print(f"{recorder.now():6.0f} s: {load.started} requests, {len(history.calls)} calls", flush=True)
        finally:
            load.stop()
            await running
        return history, load.outcomes


async def _first_model(http: httpx2.AsyncClient, url: str, rid: str) -> str:
    """Return a model that is served. Raises CannotAudit where requests could not be told apart."""
    answer = await http.get(f"{url}/v1/models", headers={"X-Request-Id": rid})
    answer.raise_for_status()
    if answer.headers.get("x-request-id") != rid:
        raise CannotAudit("X-Request-Id is ignored, and the audit needs it to name its requests")
    models = answer.json()["data"]
    if not models:
        raise CannotAudit("no model is served")
    return str(models[0]["id"])


def main() -> int:
    parser = _parser()
    given = parser.parse_args()
    outcomes: Counter[tuple[str, str]] = Counter()
    if given.check is not None:
        history = History.read(given.check)
    elif not given.urls:
        parser.error("name the frontends")
    else:
        try:
            history, outcomes = asyncio.run(_run(given))
        except httpx2.HTTPError as failure:
            print(f"{given.urls[0]} cannot be called: {failure!r}", file=sys.stderr)
            return 2
        except CannotAudit as failure:
            print(f"{given.urls[0]}: {failure}", file=sys.stderr)
            return 2
    if given.history is not None:
        history.write(given.history)
    violations = check(history)
    if not any(call.succeeded for call in history.calls):
        violations.append("no request has completed, so nothing was shown")
    print("\n".join(lines_of(history, outcomes, violations)))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
